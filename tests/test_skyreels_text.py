"""Prompt embeddings: those of the stock pipeline, computed once, kept in the cache, never stale."""

import shutil
from dataclasses import replace

import pytest
import torch
from diffusers import SkyReelsV2DiffusionForcingPipeline, UniPCMultistepScheduler
from transformers import AutoTokenizer, UMT5EncoderModel

from models.skyreels.backbone import SkyReelsV2
from models.wan import text
from models.wan.blocks import read_text
from models.wan.text import clean, embed
from tests.tiny import CPU, TINY, build, save_checkpoint

PROMPTS = ["a red circle", "", "A  &amp;amp; b\n\tc", "it\u00e2\u20ac\u2122s <b>", "🦊" * 3, "x y " * 500]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def settings(folder):
    return replace(TINY, weights="pretrained", checkpoint=str(folder), text_length=16)


@pytest.fixture
def encoded(monkeypatch):
    """The prompts that the text encoder has encoded."""
    ran = []
    encode = text._encode

    def listen(prompts, *arguments):
        ran.extend(prompts)
        return encode(prompts, *arguments)

    monkeypatch.setattr(text, "_encode", listen)
    return ran


@pytest.mark.parametrize("prompt", PROMPTS)
def test_embeddings_equal_the_stock_pipelines(prompt, settings, folder):
    pipe = SkyReelsV2DiffusionForcingPipeline(
        tokenizer=AutoTokenizer.from_pretrained(folder / "tokenizer"),
        text_encoder=UMT5EncoderModel.from_pretrained(folder / "text_encoder"),
        transformer=None,
        vae=None,
        scheduler=UniPCMultistepScheduler(),
    )
    theirs, _ = pipe.encode_prompt(prompt, do_classifier_free_guidance=False, max_sequence_length=16, device=CPU)
    ours = embed([prompt], settings, CPU, None)[prompt]
    torch.testing.assert_close(ours, theirs.detach(), atol=1e-6, rtol=0)


def test_prompts_are_cleaned_as_the_stock_pipeline_does():
    assert clean("A  &amp;amp; b\n\tc ") == "A & b c"
    assert clean("it\u00e2\u20ac\u2122s") == "it's"


def test_an_embedding_is_computed_once_and_read_after_that(settings, tmp_path, encoded):
    first = embed(["a", "b", "a"], settings, CPU, tmp_path)
    assert encoded == ["a", "b"] and len(list(tmp_path.glob("*.safetensors"))) == 2
    again = embed(["b", "c", "a"], settings, CPU, tmp_path)
    assert encoded == ["a", "b", "c"]
    assert all(torch.equal(first[p], again[p]) for p in "ab")
    assert not list(tmp_path.glob("*.part"))


def test_another_length_precision_or_encoder_is_another_embedding(settings, folder, tmp_path, encoded):
    embed(["a"], settings, CPU, tmp_path / "cache")
    for changed in (replace(settings, text_length=8), replace(settings, precision="bf16")):
        embed(["a"], changed, CPU, tmp_path / "cache")
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    weights = other / "text_encoder" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1
    weights.write_bytes(content)
    embed(["a"], replace(settings, checkpoint=str(other)), CPU, tmp_path / "cache")
    assert encoded == ["a"] * 4
    assert len(list((tmp_path / "cache").glob("*.safetensors"))) == 4


def test_names_of_cached_embeddings_are_plain_whatever_the_prompt(settings, tmp_path):
    embed(["../../x", "a/b\\c", "🦊" * 500, '"; rm -rf'], settings, CPU, tmp_path)
    names = [path.name for path in tmp_path.iterdir()]
    assert len(names) == 4 and all(name.replace("-", "").replace(".", "").isalnum() for name in names)


def test_the_negative_prompt_is_embedded_only_where_guidance_needs_it(settings, encoded):
    for guidance, wanted in ((4.0, ["", "a"]), (1.0, ["a"])):
        encoded.clear()
        model = SkyReelsV2(replace(settings, guidance=guidance), CPU)
        found = model.conditioning("a", model.texts(["a"]))
        assert encoded == wanted and tuple(found) == model.branches


def test_random_weights_give_every_prompt_its_own_seeded_embedding():
    one, two = embed(["a", "b"], TINY, CPU, None), embed(["b"], TINY, CPU, None)
    assert torch.equal(one["b"], two["b"]) and not torch.equal(one["a"], one["b"])
    assert one["a"].shape == (1, 8, 32)


@torch.inference_mode()
def test_padding_counts_as_one_token_with_the_weight_of_all():
    """Attention over w words and p equal tokens: softmax(s) with p times e^s0 for the last."""
    transformer = build().transformer
    embedding = torch.randn(1, 8, 32)
    embedding[:, 3:] = 0
    read = read_text(transformer, embedding, fold=True)
    assert [k.shape[2] for k in read.keys] == [4, 4]
    assert read.bias.flatten().tolist() == pytest.approx([0, 0, 0, torch.tensor(5.0).log().item()])
    for whole in (torch.randn(1, 8, 32), torch.zeros(1, 8, 32)):
        full = read_text(transformer, whole, fold=True)
        assert full.bias is None and full.keys[0].shape[2] == 8
