"""The memory that every method holds in addition to the model, at the settings of its YAML.

A test measures the same on small models, to the byte. docs/methods.md prints it for the published sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from baselines.shared.library_memory import bytes_per_slot
from engine.footprint import Sizes

ATTENTION = {"attention": 1, "cross_attention": 1}
ALL = {**ATTENTION, "feed_forward": 1}


@dataclass(frozen=True)
class Size:
    """The sizes of one model; bytes are per latent slot."""

    name: str
    hidden: int  # a hidden tensor, in the model's dtype
    latent: int  # a latent or velocity, float32
    signals: Mapping[str, int]  # float32
    depth: int
    guidance: int  # number of guidance branches
    kinds: frozenset[str]  # branches of a block that are sites
    unit: int  # slots per AR unit
    tokens: int  # per latent slot
    steps: int  # updates of a slot
    twice: int = 0  # slots of a window that are passed and stored twice at blocks: MAGI-1's oldest chunk
    itemsize: int = 2  # bytes of a number of a hidden tensor


@dataclass(frozen=True)
class Held:
    """The number of tensors of a method per latent slot. Hidden tensors are held once per guidance branch."""

    hidden: int = 0
    blocks: int = 0  # hidden tensors per block
    branches: Mapping[str, int] = field(default_factory=dict)  # hidden tensors per block, by kind of branch
    latents: int = 0  # latents after guidance
    guided: int = 0  # latents per guidance branch
    signal: str = ""  # name of a stored signal
    numbers: int = 0  # single float32 numbers
    marks: int = 0  # float32 numbers per token and guidance branch
    frames: int = 0  # hidden tensors of one slot per AR unit and guidance branch
    carried: int = 0  # hidden tensors of one AR unit for every step and block except the first, and their fingerprints
    first: int = 0  # hidden tensors of the first AR unit, and for each of them a float32 number per step
    course: float = 0.0  # share of the steps of which it holds a latent; ramp: at most half, but for its first unit
    second: bool = True  # whether it holds hidden tensors of MAGI-1's second pass as well

    def per_slot(self, size: Size) -> int:
        """Bytes for each latent slot."""
        latents = self.latents + size.guidance * self.guided + round(self.course * size.steps)
        signal = size.signals[self.signal] if self.signal else 0
        marks = 4 * size.guidance * self.marks * size.tokens
        return self.at_blocks(size) + latents * size.latent + signal + 4 * self.numbers + marks

    def at_blocks(self, size: Size) -> int:
        """Bytes of hidden tensors for each latent slot."""
        inside = self.blocks + sum(count for kind, count in self.branches.items() if kind in size.kinds)
        return size.guidance * (self.hidden + size.depth * inside) * size.hidden

    def most(self, size: Size, window: int, slots: int) -> int:
        """The largest number of bytes for a `window` of slots in a video of `slots`; numbers are kept for all slots."""
        each = window * self.per_slot(size) + (size.twice * self.at_blocks(size) if self.second else 0)
        frames = -(-window // size.unit) * self.per_unit(size)
        return each + (slots - window) * 4 * self.numbers + frames + self.once(size)

    def per_unit(self, size: Size) -> int:
        """Bytes for each AR unit besides those of its slots."""
        return self.frames * size.guidance * size.hidden

    def once(self, size: Size) -> int:
        """Bytes that are held once for all AR units, see `carried` and `first`."""
        first = min(self.first, size.steps) * (size.unit * size.hidden + 4 * size.steps)
        return size.guidance * first + self.for_steps(size)

    def for_steps(self, size: Size) -> int:
        """Bytes of what is `carried`. A fingerprint has 32 tokens and their mean; there are two for each residual."""
        one = size.unit * size.hidden + 2 * (min(32, size.unit * size.tokens) + 1) * (size.hidden // size.tokens)
        return self.carried * size.guidance * size.steps * (size.depth - 1) * one


@dataclass(frozen=True)
class OfLibrary(Held):
    """What a technique of a library holds. It runs on SkyReels-V2 only."""

    technique: str = "none"
    options: Mapping[str, Any] = field(default_factory=dict)

    def per_slot(self, size: Size) -> int:
        """Bytes for each latent slot."""
        width = size.hidden // (size.tokens * size.itemsize)
        sizes = Sizes(size.tokens, width, size.latent // 4, size.itemsize)
        found = bytes_per_slot(self.technique, self.options, sizes, size.depth, size.guidance)
        if found is None:
            raise ValueError(f"what {self.technique} holds with the options {self.options} is not known")
        return round(found)


TAYLORSEER = {"max_order": 1, "taylor_factors_dtype": "float32"}
PATTERNS = [r"blocks\.\d+\.(attn1|attn2|ffn)"]
BROADCAST = {"spatial_attention_block_skip_range": 2, "cross_attention_block_skip_range": 3}

SIZES = (
    Size(
        "SkyReels-V2 DF-1.3B, 544x960",
        hidden=34 * 60 * 1536 * 2,
        latent=16 * 68 * 120 * 4,
        signals={"time_projection": 6 * 1536 * 4, "patch_embedding": 34 * 60 * 1536 * 4},
        depth=30,
        guidance=2,
        kinds=frozenset(ALL),
        unit=5,
        tokens=34 * 60,
        steps=50,
    ),
    Size(
        "MAGI-1 4.5B-distill, 480x480",
        hidden=30 * 30 * 3072 * 2,
        latent=16 * 60 * 60 * 4,
        signals={"time_projection": 2 * 3072 * 4, "patch_embedding": 30 * 30 * 3072 * 4},
        depth=34,
        guidance=1,
        kinds=frozenset({"attention", "feed_forward"}),
        unit=6,
        tokens=30 * 30,
        steps=64,
        twice=6,
    ),
)

HELD = {
    "adacache": Held(branches=ALL),
    "arcache": Held(hidden=2, signal="patch_embedding", first=13, second=False),
    "budget": Held(latents=2),
    "bwcache": Held(hidden=1, blocks=1),
    "ca2vdm": Held(),
    "cfg_cache": Held(latents=2),
    "composite": Held(latents=3 + 2, signal="time_projection"),
    "delta_dit": Held(hidden=2),
    "dicache": Held(hidden=5),
    "dsa": Held(latents=1, numbers=1),
    "dsa_proxy": Held(latents=2, numbers=1),
    "easycache": Held(latents=3, numbers=1),
    "external_cache_dit": OfLibrary(technique="dbcache"),
    "external_diffusers_first_block_cache": OfLibrary(technique="first_block_cache"),
    "external_diffusers_mag_cache": OfLibrary(technique="mag_cache"),
    "external_diffusers_none": OfLibrary(),
    "external_diffusers_pab": OfLibrary(technique="pyramid_attention_broadcast", options=BROADCAST),
    "external_diffusers_sea_cache": OfLibrary(technique="sea_cache", options={"residual_order": 1}),
    "external_diffusers_taylorseer": OfLibrary(
        technique="taylorseer", options=TAYLORSEER | {"cache_identifiers": PATTERNS}
    ),
    "external_diffusers_taylorseer_lite": OfLibrary(
        technique="taylorseer", options=TAYLORSEER | {"use_lite_mode": True}
    ),
    "first_block_cache": Held(hidden=2),
    "flowcache": Held(latents=1, signal="patch_embedding"),
    "lossless": Held(),
    "magcache": Held(hidden=1),
    "meancache": Held(latents=2),
    "motioncache": Held(hidden=1, signal="time_projection", marks=2, frames=1),
    "original": Held(),
    "original_repeat": Held(),
    "original_seed": Held(),
    "pab": Held(branches=ATTENTION),
    "predit": Held(latents=3, numbers=1),
    "ramp": Held(latents=3, course=0.5),
    "reduced_steps": Held(),
    "scope": Held(latents=3, signal="time_projection"),
    "sencache": Held(hidden=1, latents=1),
    "taylorseer": Held(branches=dict.fromkeys(ALL, 2)),
    "teacache": Held(hidden=1, signal="time_projection"),
    "uniform": Held(latents=1),
    "xcache": Held(carried=1),
}


ELSEWHERE = frozenset({"dsa"})  # run on neither of the two models


def table(
    refused: frozenset[str] = frozenset({"cfg_cache", "composite", "ca2vdm", "lossless", "motioncache"}),
) -> list[str]:
    """Lines of Markdown: MiB per AR unit at the published sizes. Methods in `refused` do not run on MAGI-1."""
    lines = [f"| method | {' | '.join(f'{size.name}: MiB per AR unit' for size in SIZES)} |", "|---|---|---|"]
    for name, held in HELD.items():
        each = [held.per_slot(size) * size.unit + held.per_unit(size) + held.once(size) for size in SIZES]
        cells = [f"{held_bytes / 2**20:,.1f}" for held_bytes in each]
        if name in ELSEWHERE:
            cells = [""] * len(SIZES)
        if name in refused or name.startswith("external"):
            cells[1] = ""
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines
