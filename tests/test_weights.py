"""Checkpoints: found, checked before minutes are spent on them, and loaded as they are."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.method import Original
from engine.weights import WeightsError, digest, read_header
from models.skyreels.backbone import SkyReelsV2
from models.wan import checkpoint, places
from tests.tiny import ARCHITECTURE, CPU, TINY, build, save_checkpoint, video


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


def pretrained(folder, **changes):
    return SkyReelsV2(replace(TINY, weights="pretrained", checkpoint=str(folder), **changes), CPU)


def test_a_saved_model_makes_the_same_video(saved):
    model = pretrained(saved, architecture={}, vae={})
    model.load()
    text = {"cond": torch.randn(1, 8, 32), "uncond": torch.zeros(1, 8, 32)}
    original = build()
    videos = []
    for one in (model, original):
        one.texts = lambda prompts: {"a fox": text["cond"], "": text["uncond"]}
        videos.append(video(one, Original()))
    assert torch.equal(*videos)
    assert all(torch.equal(a, b) for a, b in zip(model.decode(videos[0]), original.decode(videos[0]), strict=True))
    assert model.parameters == sum(p.numel() for p in model.transformer.parameters())


def test_random_weights_are_the_same_in_every_process_and_leave_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = build().transformer.state_dict()
    assert torch.equal(torch.rand(1), expected)
    second = build().transformer.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first | second)
    assert build().weights_id == "random"


def test_bf16_keeps_what_diffusers_keeps_in_float32(saved):
    random, loaded = build(precision="bf16"), pretrained(saved, precision="bf16")
    loaded.load()
    types = [{n: p.dtype for n, p in m.transformer.named_parameters()} for m in (random, loaded)]
    assert types[0] == types[1]
    assert {torch.float32, torch.bfloat16} == set(types[0].values())
    assert random.vae.dtype == torch.float32
    assert torch.isfinite(video(random, Original())).all()


# --- faults -----------------------------------------------------------------------------------------------------------


def test_a_checkpoint_that_is_nowhere_says_how_to_get_it(tmp_path):
    with pytest.raises(WeightsError) as error:
        _ = pretrained("no-such-org/no-such-model").weights_id
    words = str(error.value)
    assert "no-such-org/no-such-model" in words and "`hf download no-such-org/no-such-model`" in words
    assert "model.checkpoint=FOLDER" in words and "model.weights=random" in words


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder"])
@pytest.mark.parametrize("fault", ["missing", "truncated", "empty", "no safetensors"])
def test_a_broken_file_is_named_with_the_command_that_gets_it(folder, part, fault):
    path = next((folder / part).glob("*.safetensors"))
    if fault == "missing":
        path.unlink()
    else:
        path.write_bytes({"truncated": path.read_bytes()[:-100], "empty": b"", "no safetensors": b"<html>" * 99}[fault])
    for ask in (lambda: pretrained(folder).weights_id, lambda: pretrained(folder).load()):
        with pytest.raises(WeightsError) as error:
            ask()
        assert str(path) in str(error.value) and "hf download" in str(error.value)
        assert "\n" not in str(error.value)


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"config\.json is missing: this is not a diffusers-format checkpoint"):
        _ = pretrained(tmp_path, architecture={}).parameters


def test_another_model_than_the_settings_say_is_refused(folder):
    wrong = pretrained(folder, architecture={**ARCHITECTURE, "num_layers": 3})
    with pytest.raises(WeightsError, match="holds another model than model=tiny: num_layers=2 instead of 3"):
        wrong.load()


def test_a_shard_that_the_index_names_must_be_there(folder):
    part = folder / "transformer"
    whole = part / "diffusion_pytorch_model.safetensors"
    state = load_file(whole)
    whole.unlink()
    names = sorted(state)
    halves = {"a.safetensors": names[: len(names) // 2], "b.safetensors": names[len(names) // 2 :]}
    for file, keys in halves.items():
        save_file({key: state[key] for key in keys}, part / file)
    index = {"metadata": {}, "weight_map": {key: file for file, keys in halves.items() for key in keys}}
    (part / f"{whole.name}.index.json").write_text(json.dumps(index))
    sharded = pretrained(folder)
    assert sharded.weights_id
    sharded.load()
    assert all(torch.equal(value, state[name]) for name, value in sharded.transformer.state_dict().items())
    (part / "b.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"b\.safetensors is missing"):
        _ = pretrained(folder).weights_id


def test_the_identity_of_weights_is_their_content(folder, tmp_path):
    before = pretrained(folder).weights_id
    assert pretrained(shutil.copytree(folder, tmp_path / "elsewhere")).weights_id == before
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    name = sorted(state)[0]
    save_file({**state, name: state[name] + 1}, path)
    assert pretrained(folder).weights_id != before


def test_a_header_lists_what_a_file_holds(tmp_path):
    save_file({"a": torch.zeros(2, 3), "b": torch.zeros(1)}, tmp_path / "x.safetensors")
    header = read_header(tmp_path / "x.safetensors")
    assert {name: entry["shape"] for name, entry in header.items()} == {"a": [2, 3], "b": [1]}
    assert digest([tmp_path / "x.safetensors"]) == digest([tmp_path / "x.safetensors"])


def test_relative_checkpoints_are_also_looked_for_beside_the_program(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    found = checkpoint.locate(replace(TINY, checkpoint="conf"))
    assert found == places.ROOT / "conf"
    (tmp_path / "conf").mkdir()
    assert checkpoint.locate(replace(TINY, checkpoint="conf")).resolve() == tmp_path / "conf"
