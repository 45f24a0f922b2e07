"""The memory that the techniques of libraries hold, from their options; `state` of baselines/library.py measures it.

A library's hooks sit on the modules of the model, so they cannot be tried on a few numbers as our methods can. What
they keep is read from diffusers 0.42.1:

    first_block_cache             output and residual of the first block, residual of the other blocks
    mag_cache                     input of the first block, residual of all blocks
    sea_cache                     residuals of all blocks, `residual_order` + 1 of them; the filtered latents
    pyramid_attention_broadcast   the output of every attention of every kind that is skipped
    taylorseer                    `max_order` + 1 tensors per output of a module, in `taylor_factors_dtype`

All are held once per guidance branch, except the broadcast, which has one memory and is refused with guidance.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from engine.footprint import Sizes

ITEMSIZE = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
OUTPUTS = ("attn1", "attn2", "ffn")  # modules of a block whose output is a hidden state
INNER = ("", ".norm1", ".attn1.to_q", ".attn1.to_out.0", ".attn2.norm_q", ".ffn.net.0", ".ffn.net.0.proj", ".norm3")


def bytes_per_slot(technique: str, options: Mapping[str, Any], sizes: Sizes, depth: int, branches: int) -> float | None:
    """Bytes for each latent slot in a model of `depth` blocks; None if the options name modules that are not known."""
    hidden = sizes.tokens * sizes.width
    if technique == "taylorseer":
        return _taylorseer(options, sizes, depth, branches)
    numbers = {
        "none": 0,
        "dbcache": 2 * hidden,
        "first_block_cache": 3 * hidden,
        "mag_cache": 2 * hidden,
        "sea_cache": (options.get("residual_order", 1) + 1) * hidden + sizes.latent,
        "pyramid_attention_broadcast": depth * _broadcast(options) * hidden,
    }[technique]
    return numbers * sizes.itemsize * (1 if technique == "pyramid_attention_broadcast" else branches)


def _broadcast(options: Mapping[str, Any]) -> int:
    """The kinds of attention whose output is kept."""
    return sum(options.get(f"{kind}_attention_block_skip_range") is not None for kind in ("spatial", "cross"))


def _taylorseer(options: Mapping[str, Any], sizes: Sizes, depth: int, branches: int) -> float | None:
    each = (options.get("max_order", 1) + 1) * ITEMSIZE[str(options.get("taylor_factors_dtype", "bfloat16"))] * branches
    if options.get("use_lite_mode"):
        return each * sizes.latent  # the output of the last projection alone
    patterns = options.get("cache_identifiers") or []

    def hooked(name: str) -> bool:
        return any(re.fullmatch(pattern, name) for pattern in patterns)

    blocks = [f"blocks.{i}" for i in range(depth)]
    count = sum(hooked(f"{block}.{name}") for block in blocks for name in OUTPUTS)
    inside = any(hooked(block + name) for block in blocks for name in INNER)
    return None if inside or not count else each * count * sizes.tokens * sizes.width
