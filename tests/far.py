"""An AnyFlow-FAR of random weights that denoises a video in a fraction of a second, for the tests of the engine."""

from dataclasses import replace

import torch

from benchmarks import stock_far
from engine.ledger import Entry
from engine.loop import generate
from engine.method import Method
from models.far.backbone import AnyFlowFAR
from models.far.plan import FarPlan
from models.far.settings import Far
from tests.tiny import CPU, VAE

ARCHITECTURE = {
    "patch_size": [1, 2, 2],
    "compressed_patch_size": [1, 4, 4],
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": 32,
    "ffn_dim": 32,
    "num_layers": 2,
    "rope_max_seq_len": 64,
}
FAR = Far(
    name="far",
    weights="random",
    frames=29,  # 8 latents in chunks of 1, 2, 2, 2, 1: the first two are compressed for the last
    chunk_partition=[1, 2, 2, 2, 1],
    height=32,
    width=64,
    text_length=8,
    precision="fp32",
    architecture=ARCHITECTURE,
    vae=VAE,
)


def build(**changes: object) -> AnyFlowFAR:
    """The tiny model with some settings changed, weights drawn and enlarged, so that attention is far from uniform."""
    model = AnyFlowFAR(replace(FAR, **changes), CPU)
    model.load()
    for block in model.transformer.blocks:
        block.attn1.norm_q.weight.data.fill_(3.0)
    return model


def plan(**changes: object) -> FarPlan:
    """The tiny model without its weights, with some settings changed."""
    return FarPlan(replace(FAR, **changes), CPU)


def video(model: AnyFlowFAR, method: Method, seed: int = 0, ledger: list[Entry] | None = None) -> torch.Tensor:
    """The latents of one video, (slots, C, H, W)."""
    text = model.conditioning("a fox", model.texts(["a fox"]))
    return generate(model, method, text, seed, [] if ledger is None else ledger)


def stock(model: AnyFlowFAR, **more: object) -> torch.Tensor:
    """The same video by diffusers' own pipeline, (slots, C, H, W)."""
    texts = model.texts(["a fox"])
    return stock_far.stock(model, texts["a fox"], texts.get(model.settings.negative_prompt), 0, **more)
