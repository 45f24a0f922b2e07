"""Every part of a checkpoint, every kind of fault: refused in one line before anything is generated, or harmless."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

from engine.weights import WeightsError
from models.magi1.backbone import Magi1Backbone
from models.magi1.checkpoint import random_dit
from models.magi1.text import TextEncoder
from models.magi1.vae import VaeConfig, ViTVAE
from models.skyreels.backbone import SkyReelsV2
from tests import tiny
from tests.test_magi1_backbone import ARCHITECTURE, VAE
from tests.test_magi1_backbone import TINY as MAGI1

SKYREELS = {"transformer": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
CHUNKED = {".": "model", "vae": "diffusion_pytorch_model", "t5": "model"}
FAULTS = (
    "no file",
    "cut short",
    "empty",
    "no safetensors",
    "renamed file",
    "tensor missing",
    "tensor renamed",
    "tensor extra",
    "tensor of another shape",
    "integers",
    "config missing",
    "config no JSON",
    "config a list",
    "config of another size",
)
INDICES = (
    "no JSON",
    "a list",
    "no weight_map",
    "weight_map a list",
    "empty",
    "outside",
    "promises too much",
    "file missing",
)
SIZES = {"transformer": "ffn_dim", "text_encoder": "d_ff", ".": "ffn_hidden_size", "t5": "d_ff"}


@pytest.fixture(scope="module")
def skyreels(tmp_path_factory):
    return tiny.save_checkpoint(tmp_path_factory.mktemp("skyreels"))


@pytest.fixture(scope="module")
def magi1(tmp_path_factory):
    """The tiny MAGI-1's folder: transformer, autoencoder, T5 with a tokenizer of whole words."""
    folder = tmp_path_factory.mktemp("magi1")
    for part in ("vae", "t5"):
        (folder / part).mkdir()
    model = random_dit(MAGI1.model_config(ARCHITECTURE))
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "model.safetensors")
    config = {"model_config": ARCHITECTURE, "engine_config": {"distill": True}}
    (folder / "config.json").write_text(json.dumps(config))
    vae = ViTVAE(VaeConfig.from_dict(VAE))
    state = {name: tensor.contiguous() for name, tensor in vae.state_dict().items()}
    save_file(state, folder / "vae/diffusion_pytorch_model.safetensors")
    (folder / "vae/config.json").write_text(json.dumps({"_class_name": "ViTVAE", "ddconfig": VAE}))
    words = {"<pad>": 0, "</s>": 1, "<unk>": 2, "a": 3, "red": 4, "fox": 5}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", eos_token="</s>")
    fast.save_pretrained(folder / "t5")
    T5EncoderModel(T5Config(vocab_size=6, d_model=12, d_kv=4, d_ff=16, num_layers=1, num_heads=2)).save_pretrained(
        folder / "t5"
    )
    return folder


def backbone(name, folder):
    if name == "skyreels":
        return SkyReelsV2(replace(tiny.TINY, weights="pretrained", checkpoint=str(folder), architecture={}), tiny.CPU)
    settings = replace(MAGI1, weights="pretrained", checkpoint=str(folder), architecture={}, special_tokens=[])
    return Magi1Backbone(settings, torch.device("cpu"))


def broken(place, stem, fault):
    """Break one part of a checkpoint; returns a word that the error message must contain."""
    path, config = place / f"{stem}.safetensors", place / "config.json"
    content = path.read_bytes()
    state = load_file(path) if fault.startswith("tensor") or fault == "integers" else {}
    name = sorted(state, key=lambda n: (state[n].ndim, n))[-1] if state else ""
    if fault in ("no file", "renamed file"):
        path.rename(place / "weights.safetensors") if fault == "renamed file" else path.unlink()
        return path.name
    if fault in ("cut short", "empty", "no safetensors"):
        path.write_bytes({"cut short": content[:-9], "empty": b"", "no safetensors": b"<html>" * 99}[fault])
        return path.name
    if fault == "config missing":
        config.unlink()
        return "config.json"
    if fault in ("config no JSON", "config a list"):
        config.write_text("{" if fault == "config no JSON" else "[]")
        return "config.json"
    if fault == "config of another size":
        entries = json.loads(config.read_text())
        inner = entries.get("model_config", entries.get("ddconfig", entries))
        size = SIZES.get(place.name, "ffn_hidden_size" if "model_config" in entries else "")
        size = size or ("embed_dim" if "ddconfig" in entries else "base_dim")
        inner[size] *= 2
        config.write_text(json.dumps(entries))
        return "of another shape"
    value = state.pop(name)
    state |= {
        "tensor missing": {},
        "tensor renamed": {f"{name}.old": value},
        "tensor extra": {name: value, "extra": value},
        "tensor of another shape": {name: value[None]},
        "integers": {name: value.to(torch.int8)},
    }[fault]
    save_file({n: t.clone() for n, t in state.items()}, path)
    return "extra" if fault == "tensor extra" else name


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(
    "name,part,stem",
    [
        *[("skyreels", *item) for item in SKYREELS.items()],
        *[("magi1", *item) for item in CHUNKED.items()],
    ],
)
def test_a_fault_of_any_part_is_refused_in_one_line(name, part, stem, fault, request, tmp_path):
    folder = shutil.copytree(request.getfixturevalue(name), tmp_path / "copy")
    told = broken(folder / part, stem, fault)
    with pytest.raises(WeightsError) as error:
        _ = backbone(name, folder).weights_id
    assert "\n" not in str(error.value) and str(folder) in str(error.value) and told in str(error.value)


@pytest.mark.parametrize("name", ["skyreels", "magi1"])
def test_a_refusal_comes_before_the_weights_and_before_the_text(name, request, tmp_path):
    folder = shutil.copytree(request.getfixturevalue(name), tmp_path / "copy")
    part = "text_encoder" if name == "skyreels" else "t5"
    broken(folder / part, "model", "tensor missing")
    for ask in (lambda m: m.weights_id, lambda m: m.load(), lambda m: m.texts(["a red fox"])):
        with pytest.raises(WeightsError, match="missing"):
            ask(backbone(name, folder))


@pytest.mark.parametrize("fault", INDICES)
@pytest.mark.parametrize(
    "name,part,stem",
    [
        *[("skyreels", *item) for item in SKYREELS.items()],
        ("magi1", ".", "model"),
        ("magi1", "t5", "model"),
    ],
)
def test_a_broken_index_is_refused_in_one_line(name, part, stem, fault, request, tmp_path):
    folder = shutil.copytree(request.getfixturevalue(name), tmp_path / "copy")
    whole = folder / part / f"{stem}.safetensors"
    shard = whole.rename(whole.with_name("shard.safetensors"))
    where = dict.fromkeys(load_file(shard), shard.name)
    first = sorted(where)[0]
    index = {
        "no JSON": "{",
        "a list": "[]",
        "no weight_map": "{}",
        "weight_map a list": '{"weight_map": [1]}',
        "empty": '{"weight_map": {}}',
        "outside": json.dumps({"weight_map": {**where, first: "../../x.safetensors"}}),
        "promises too much": json.dumps({"weight_map": {**where, "more": shard.name}}),
        "file missing": json.dumps({"weight_map": {**where, first: "other.safetensors"}}),
    }[fault]
    whole.with_name(f"{whole.name}.index.json").write_text(index)
    with pytest.raises(WeightsError) as error:
        _ = backbone(name, folder).weights_id
    assert "\n" not in str(error.value) and str(folder) in str(error.value)


@pytest.mark.parametrize("fault", ["folder", "tokenizer.json", "tokenizer_config.json", "cut short", "no model"])
@pytest.mark.parametrize("name", ["skyreels", "magi1"])
def test_a_tokenizer_that_is_not_whole_is_refused(name, fault, request, tmp_path):
    folder = shutil.copytree(request.getfixturevalue(name), tmp_path / "copy")
    place = folder / ("tokenizer" if name == "skyreels" else "t5")
    path = place / "tokenizer.json"
    if fault == "folder":
        for file in place.glob("*token*"):
            file.unlink()
    elif fault in ("cut short", "no model"):
        path.write_text(path.read_text()[:-9] if fault == "cut short" else "{}")
    else:
        (place / fault).unlink()
    for ask in (lambda m: m.weights_id, lambda m: m.load(), lambda m: m.texts(["a red fox"])):
        with pytest.raises(WeightsError) as error:
            ask(backbone(name, folder))
        assert "\n" not in str(error.value) and str(place) in str(error.value)


def test_the_tokenizer_of_another_encoder_is_refused(magi1, tmp_path):
    folder = shutil.copytree(magi1 / "t5", tmp_path / "t5")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"] |= {"fox": 99}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(WeightsError, match=r"the tokenizer in .* want known ids below 6, the size of the encoder"):
        TextEncoder(folder)


def test_pickled_text_weights_are_checked_as_they_are_loaded(magi1, tmp_path):
    folder = shutil.copytree(magi1 / "t5", tmp_path / "t5")
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    assert next(TextEncoder(folder).encode(["a red fox"])).shape == (3, 12)
    lost = "encoder.final_layer_norm.weight"
    torch.save({name: tensor for name, tensor in state.items() if name != lost}, folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=rf"lacks {lost}"):
        TextEncoder(folder)
    (folder / "pytorch_model.bin").write_bytes((folder / "pytorch_model.bin").read_bytes()[:-99])
    with pytest.raises(WeightsError, match="cut short"):
        TextEncoder(folder)


@pytest.mark.parametrize("name", ["skyreels", "magi1"])
def test_what_is_whole_loads_and_what_nobody_reads_is_harmless(name, request, tmp_path):
    """The run sets the sampler, so the checkpoint's scheduler may be missing or broken. Keys of later versions may
    be there."""
    folder = shutil.copytree(request.getfixturevalue(name), tmp_path / "copy")
    first = backbone(name, folder)
    first.load()
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text("{")
    (folder / "model_index.json").write_text("[]")
    for config in (folder / "transformer/config.json", folder / "vae/config.json", folder / "config.json"):
        if config.is_file():
            config.write_text(json.dumps({**json.loads(config.read_text()), "of_a_later_version": 1}))
    text = "text_encoder" if name == "skyreels" else "t5"
    state = load_file(folder / text / "model.safetensors")
    save_file({**state, "decoder.final_layer_norm.weight": torch.ones(4)}, folder / text / "model.safetensors")
    again = backbone(name, folder)
    again.load()
    assert all(
        torch.equal(a, b)
        for a, b in zip(first.transformer.state_dict().values(), again.transformer.state_dict().values(), strict=True)
    )
    one, two = first.texts(["a red fox"])["a red fox"], again.texts(["a red fox"])["a red fox"]
    assert torch.equal(one, two) and again.parameters == first.parameters


@pytest.mark.parametrize(
    "given,wanted",
    [
        ("Skywork/SkyReels-V2-DF-1.3B-540P", "`hf download Skywork/SkyReels-V2-DF-1.3B-540P-Diffusers`"),
        ("nobody/nothing", "`hf download nobody/nothing`"),
        ("/no/such/folder", "--local-dir /no/such/folder`"),
    ],
)
def test_advice_is_a_command_that_works(given, wanted):
    with pytest.raises(WeightsError) as error:
        _ = backbone("skyreels", given).weights_id
    assert wanted in str(error.value) and "hf download /" not in str(error.value)
