"""Text for MAGI-1: cleaning, special tokens, and what each chunk is told."""

import numpy as np
import pytest
import torch

from engine.weights import WeightsError
from models.magi1.caption import clean_caption
from models.magi1.text import SpecialTokens, TextEncoder, chunk_texts, negative_text


@pytest.fixture(scope="module")
def tokens():
    rows = torch.arange(17.0)[:, None].expand(17, 3)
    return SpecialTokens.of(rows, torch.full((1, 3), 40.0), torch.full((1, 3), 41.0))


@pytest.mark.parametrize(
    "given, cleaned",
    [
        ("A Red FOX runs.", "a red fox runs."),
        ("see https://example.com/a?b=1 now", "see ?b=1 now"),
        ("visit example.org/page today", "visit today"),
        ("by @someone in 北京 city", "by in city"),
        ("well—known “thing” and ‘more’", 'well-known "thing" and \'more'),
        ("a<br/>b &amp; c", "ab c"),
        ("photo IMG.png of #1234567 cats", "photo of cats"),
        ("free shipping worldwide, click here", "worldwide, click here"),
        ("a-very-long-dashed-name", "a very long dashed name"),
        ("(brackets) [and] {more} *stars*", "brackets and more stars"),
        ("1920x1080 video , fine", "video , fine"),
        ('"quoted whole"', "quoted whole"),
        ("a &lt;person&gt; &amp; dog", "a person dog"),
        ("a%20b+c", "a b c"),
        ("wait... what", "wait what"),
        ("", ""),
    ],
)
def test_captions_are_cleaned_as_in_training(given, cleaned):
    assert clean_caption(clean_caption(given)) == cleaned


def test_each_chunk_is_told_how_many_are_to_come(tokens):
    caption = torch.full((5, 3), 99.0)
    texts = chunk_texts(caption, tokens, chunks=10)
    assert [text[0, 0].item() for text in texts] == [14, 14, 14, 13, 12, 11, 10, 9, 8, 7]  # 8+, ..., 2, 1
    for text in texts:
        assert text[1, 0] == 1 and torch.equal(text[2:], caption)  # high quality, then the caption


def test_special_tokens_come_in_the_released_order_and_push_the_end_out(tokens):
    names = ("3d", "2d", "static", "dynamic", "borderness", "hq", "duration")
    text = chunk_texts(torch.full((798, 3), 99.0), tokens, chunks=1, prepend=names)[0]
    assert text[:8, 0].tolist() == [7, 16, 15, 1, 4, 3, 2, 99] and len(text) == 800
    with pytest.raises(ValueError, match="unknown special tokens"):
        chunk_texts(text, tokens, 1, prepend=("quality",))
    with pytest.raises(ValueError, match="none are loaded"):
        chunk_texts(text, None, 1)


def test_no_prompt_means_the_null_caption(tokens):
    assert chunk_texts(torch.empty(0, 3), tokens, chunks=4) is None


def test_the_negative_prompt_keeps_its_length(tokens):
    text = negative_text(torch.zeros(50, 3), tokens)
    assert text[:5, 0].tolist() == [4, 0, 41, 40, 0] and len(text) == 50


def test_special_tokens_are_rounded_to_half_precision_and_checked(tmp_path):
    path = tmp_path / "special_tokens.npz"
    with pytest.raises(WeightsError, match="copy example/assets"):
        SpecialTokens.load(path)
    rows = np.full((100, 4), 0.1)
    np.savez(path, other_tokens=rows, caption_token=rows[:1], logo_token=rows[:1])
    assert SpecialTokens.load(path).row("hq")[0] == torch.tensor(0.1, dtype=torch.float16).float()
    np.savez(path, other_tokens=rows[:3], caption_token=rows[:1], logo_token=rows[:1])
    with pytest.raises(ValueError, match="17 or more"):
        SpecialTokens.load(path)
    path.write_bytes(b"not an archive")
    with pytest.raises(WeightsError, match="does not hold"):
        SpecialTokens.load(path)


def test_pickled_special_tokens_are_not_opened(tmp_path):
    path = tmp_path / "special_tokens.npz"
    np.savez(path, other_tokens=np.array([{"run": "me"}], dtype=object), caption_token=[0], logo_token=[0])
    with pytest.raises(WeightsError, match="does not hold"):
        SpecialTokens.load(path)


def test_a_missing_text_encoder_says_how_to_get_it(tmp_path):
    with pytest.raises(WeightsError, match="hf download DeepFloyd/t5-v1_1-xxl"):
        TextEncoder(tmp_path)


def test_prompts_become_embeddings_without_padding(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

    words = {"<pad>": 0, "</s>": 1, "<unk>": 2, "red": 3, "fox": 4}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", eos_token="</s>")
    fast.save_pretrained(tmp_path)
    torch.manual_seed(0)
    config = T5Config(vocab_size=5, d_model=8, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    T5EncoderModel(config).save_pretrained(tmp_path)
    encoder = TextEncoder(tmp_path)
    red, fox = encoder.encode(["RED", "Red fox!"])
    assert red.shape == (1, 8) and fox.shape[1] == 8 and fox.dtype == torch.float32
    assert torch.equal(next(encoder.encode(["RED"])), red)
