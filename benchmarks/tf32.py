"""What TF32 in MAGI-1's projection after attention does to a video, emulated on a CPU.

    python -m benchmarks.tf32 [prompts=3] [bits=10,7] [model.precision=bf16] [model.steps=64]

`model.proj_precision=tf32` lets a GPU multiply float32 matrices in TF32: both factors are rounded to 10 bits of the
fraction, and products are added in float32. A CPU has no TF32, so here both factors of that product are rounded to
`bits` bits (10: TF32, 7: bfloat16), to the nearest and in a tie to the even number, and multiplied in float32. A GPU
may add in another order, and its library may round a tie away from zero or cut bits off, which is at most twice the
error.

Generates the Original of magi1_tiny with and without. Prints, as means over the prompts, the relative difference of the
latents, and PSNR and LPIPS between the videos. The last line is one JSON object.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from benchmarks.abab import split
from benchmarks.common import composed, prompts_of
from engine.loop import generate
from engine.method import Original
from eval import metrics, video
from terminal import tolerate

DEFAULTS = {"prompts": "3", "bits": "10,7"}
FRACTION, TF32 = 23, 10  # bits of the fraction of float32 and of TF32, the leading one not counted


def rounded(x: Tensor, bits: int = TF32) -> Tensor:
    """`x` (float32) with `bits` bits of the fraction, to the nearest, ties to even; infinities and NaN as they are.

    >>> rounded(torch.tensor([1 + 2**-11, 1 + 3 * 2**-11, -1 - 2**-10])).tolist() == [1.0, 1 + 2**-9, -1 - 2**-10]
    True
    """
    low = FRACTION - bits
    word = x.contiguous().view(torch.int32)
    even = (word >> low) & 1  # 1 if the last bit that stays is set: a tie then goes up
    cut = (word + (1 << low - 1) - 1 + even) & -(1 << low)
    return torch.where(torch.isfinite(x), cut.view(torch.float32), x)


class Rounding(TorchFunctionMode):
    """While it is open, float32 factors of linear layers are rounded to `bits` bits."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.linear and all(factor.dtype == torch.float32 for factor in args[:2]):
            args = (*(rounded(factor, self.bits) for factor in args[:2]), *args[2:])
        return func(*args, **(kwargs or {}))


@contextmanager
def emulated(model: Any, bits: int) -> Iterator[None]:
    """While this is open, the projection after attention in every layer of `model` multiplies rounded factors."""
    attentions = [layer.self_attention for layer in model.transformer.videodit_blocks.layers]

    def around(merge: Any) -> Any:
        def rounding(own: Tensor, text: Tensor) -> Tensor:
            with Rounding(bits):
                product: Tensor = merge(own, text)
            return product

        return rounding

    for attention in attentions:
        attention.merge = around(attention.merge)
    try:
        yield
    finally:
        for attention in attentions:
            del attention.merge


def apart(ours: Tensor, theirs: Tensor) -> float:
    """The norm of the difference of two latents, relative to that of `theirs`."""
    return float((ours - theirs).norm() / theirs.norm())


def similarity(ours: np.ndarray, theirs: np.ndarray) -> dict[str, float | None]:
    """PSNR (dB, None for equal videos) and LPIPS of two videos (T, H, W, 3) uint8."""
    if np.array_equal(ours, theirs):
        return {"psnr": None, "lpips": 0.0}
    with tempfile.TemporaryDirectory() as name:
        paths = [Path(name) / "ours.mp4", Path(name) / "theirs.mp4"]
        for path, frames in zip(paths, (ours, theirs), strict=True):
            video.write_lossless(path, frames)
        found = metrics.compare(paths[0], paths[1])
    return {"psnr": found.psnr, "lpips": found.lpips}


def measured(model: Any, prompt: str, bits: Sequence[int]) -> dict[int, dict[str, float | None]]:
    """{bits: relative difference of the latents, PSNR and LPIPS} of one prompt's video."""
    text = model.conditioning(prompt, model.texts([prompt]))

    def made() -> tuple[Tensor, np.ndarray]:
        latents = generate(model, Original(), text, 0, [])
        return latents, torch.cat(list(model.decode(latents))).numpy()

    exact, found = made(), {}
    for count in bits:
        with emulated(model, count):
            latents, frames = made()
        found[count] = {"latents": apart(latents, exact[0]), **similarity(frames, exact[1])}
    return found


def mean(rows: Sequence[dict[str, float | None]], name: str) -> float | None:
    """The mean of the known values; None if there is none."""
    values = [value for row in rows if (value := row[name]) is not None]
    return float(np.mean(values)) if values else None


def main(arguments: Sequence[str]) -> int:
    """The command line."""
    own, rest = split(arguments, DEFAULTS)
    run, model, _ = composed(["model=magi1_tiny", "method=original", "device=cpu", *rest])
    model.load()
    bits = [int(count) for count in own["bits"].split(",")]
    rows = [measured(model, prompt, bits) for prompt in prompts_of(run, int(own["prompts"]))]
    found = {count: {name: mean([row[count] for row in rows], name) for name in rows[0][count]} for count in bits}
    for count, values in found.items():
        shown = ", ".join(f"{name} {'–' if value is None else f'{value:.3g}'}" for name, value in values.items())
        print(f"{count} bits: {shown}")
    print(json.dumps({"prompts": len(rows), "precision": model.settings.precision, "bits": found}))
    return 0


if __name__ == "__main__":
    tolerate()
    sys.exit(main(sys.argv[1:]))
