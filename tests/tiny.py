"""A SkyReels-V2 of random weights that denoises a video in a fraction of a second, for the tests of the engine."""

from dataclasses import replace
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from benchmarks.stock import stock as stock_pipeline
from engine.ledger import Entry
from engine.loop import generate
from engine.method import Method
from models.skyreels.backbone import SkyReelsV2
from models.skyreels.settings import SkyReels

CPU = torch.device("cpu")
ARCHITECTURE = {
    "patch_size": [1, 2, 2],
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": 32,
    "freq_dim": 256,
    "ffn_dim": 32,
    "num_layers": 2,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "eps": 1e-6,
    "rope_max_seq_len": 64,
    "inject_sample_info": True,
}
VAE = {
    "base_dim": 3,
    "z_dim": 16,
    "dim_mult": [1, 1, 1, 1],
    "num_res_blocks": 1,
    "temperal_downsample": [False, True, True],
}
SHORT, LONG, THREE = 37, 61, 85  # frames: 10 latents; 16 in segments of 10 and 10; 22 in three segments
TINY = SkyReels(
    name="tiny",
    weights="random",
    frames=SHORT,
    height=32,
    width=48,
    base_frames=37,
    overlap=13,
    steps=6,
    ar_step=2,
    block=2,
    guidance=4.0,
    text_length=8,
    precision="fp32",
    architecture=ARCHITECTURE,
    vae=VAE,
)


def build(**changes: object) -> SkyReelsV2:
    """The tiny model with some settings changed, weights drawn."""
    model = SkyReelsV2(replace(TINY, **changes), CPU)
    model.load()
    return model


def texts_of(model: SkyReelsV2, prompt: str) -> dict[str, torch.Tensor]:
    """Embeddings as the text encoder gives them: zero past the last token."""
    found = model.texts([prompt])
    return {p: torch.cat([e[:, : 1 + len(p)], 0 * e[:, 1 + len(p) :]], dim=1) for p, e in found.items()}


def video(
    model: SkyReelsV2, method: Method, prompt: str = "a fox", seed: int = 0, ledger: list[Entry] | None = None
) -> torch.Tensor:
    """The latents of one video, (slots, C, H, W)."""
    text = model.conditioning(prompt, texts_of(model, prompt))
    return generate(model, method, text, seed, [] if ledger is None else ledger)


def ledger_of(model: SkyReelsV2, method: Method, seed: int = 0) -> list[Entry]:
    """What was decided in one video."""
    ledger: list[Entry] = []
    video(model, method, seed=seed, ledger=ledger)
    return ledger


def stock(model: SkyReelsV2, prompt: str = "a fox", seed: int = 0) -> torch.Tensor:
    """The same video by diffusers' own pipeline, (slots, C, H, W)."""
    texts = texts_of(model, prompt)
    return stock_pipeline(model, texts[prompt], texts.get(model.settings.negative_prompt), seed)


def save_checkpoint(folder: Path) -> Path:
    """A whole diffusers-format checkpoint of the tiny model, text encoder and tokenizer included."""
    model = build()
    model.transformer.save_pretrained(folder / "transformer")
    model.vae.save_pretrained(folder / "vae")
    config = UMT5Config(
        vocab_size=64,
        d_model=32,
        d_kv=8,
        d_ff=37,
        num_layers=2,
        num_heads=4,
        relative_attention_num_buckets=8,
        feed_forward_proj="gated-gelu",
        pad_token_id=0,
        eos_token_id=1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        UMT5EncoderModel(config).save_pretrained(folder / "text_encoder")
    letters = {c: i for i, c in enumerate(["<pad>", "</s>", "<unk>", *"abcdefghijklmnopqrstuvwxyz ,.'<>&"])}
    tokenizer = Tokenizer(models.WordLevel(letters, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder / "tokenizer")
    return folder
