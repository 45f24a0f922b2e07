"""The memory of the device that a method takes, told before anything is launched.

The model's own stages come from a formula (its `footprint`). What the method holds between rows is found by running
its code on a few rows of tensors of the right number of slots and a few numbers each; the counts are then those of the
full size. The answer is kept in the user's cache. Hooks of a library need the model's modules, so their memory comes
from a formula too (the method's `footprint`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.footprint import Footprint
from engine.kept import kept, sources
from engine.method import Method
from engine.row import TRANSFORMER, Row
from sweep.replay import Blank
from sweep.shipped import shipped

CARDS = (24, 48, 80)  # GB
TIGHT = 0.95  # of a card; the rest is for the driver, the workspaces of libraries and fragmentation
GB = 1e9
TOKENS, WIDTH, LATENT = 3, 7, 11  # numbers in a token's place; primes tell kinds of tensors apart
SIGNALS = {"time_projection": 13, "time_embedding": 17, "patch_embedding": 19, "latent": LATENT}
ROWS = 4  # rows that are run: enough for a method to fill its memory


@dataclass(frozen=True)
class Memory:
    """Bytes. `state`: what the method holds between rows, which is part of denoising; None if it cannot be told."""

    stages: Footprint
    state: int | None

    @property
    def denoising(self) -> float:
        """Peak of the denoising loop, the method's state included."""
        return self.stages.denoising + (self.state or 0)

    @property
    def most(self) -> float:
        """The largest of all stages."""
        return max(self.stages.most, self.denoising)

    def fits(self, card: float) -> str:
        """Whether a card of `card` GB is enough: yes, no, or the least `offload` with which it is."""
        stages = self.stages
        video = max(stages.loading, self.denoising)
        peaks = {
            "yes": self.most,
            "with offload=text": max(video, stages.decoding),
            "with offload=all": max(video, stages.decoding - stages.denoiser),
        }
        return next((how for how, peak in peaks.items() if peak <= TIGHT * card * GB), "no")

    def told(self) -> dict[str, Any]:
        """As a dry run prints it, in GB."""
        stages = {name: round(getattr(self.stages, name) / GB, 2) for name in ("encoding", "loading", "decoding")}
        found = stages | {"denoising": round(self.denoising / GB, 2), "most": round(self.most / GB, 2)}
        found["state"] = None if self.state is None else round(self.state / GB, 2)
        return found | {"fits": {f"{card} GB": self.fits(card) for card in CARDS}}


def memory(model: Any, method: Method) -> Memory:
    """The memory of a video of `method` on `model`, which needs no weights."""
    rows = [method.narrow(row) for row in model.schedule()]
    stock = TRANSFORMER.kind in method.requires
    return Memory(model.footprint(rows, method.grain == "unit", stock), state_bytes(model, method))


def state_bytes(model: Any, method: Method) -> int | None:
    """Bytes that `method` holds between rows; None if only the model's own modules could tell."""
    each = method.footprint(model.sizes, model.depth, len(model.branches))
    if each is not None or TRANSFORMER.kind in method.requires:
        return None if each is None else round(each * max(len(row.slots) for row in model.schedule()))
    if type(method).state is Method.state:
        return 0
    what = f"state of {type(method).__module__}.{method!r} on {model.settings!r}"
    files = sources("engine", "models", "scope", "baselines", "sweep")
    told = kept(what, files, lambda: shipped(what, model, method, held) or held(model, method))
    found: int | None = json.loads(told)
    return found


def held(model: Any, method: Method) -> str:
    """What `state_bytes` gives, as JSON, by running the method now."""
    try:
        return json.dumps(_held(model, method))
    except (RuntimeError, AttributeError, ValueError):  # a plug-in that needs modules that are not there
        return "null"


def _held(model: Any, method: Method) -> int:
    """Run the method on ROWS rows and add up what it then holds, at the sizes of `model`."""
    import torch

    from engine.loop import generate
    from sweep.calibration.rehearsal import Rehearsal

    dtype = torch.bfloat16 if model.sizes.itemsize == 2 else torch.float32
    stage = Rehearsal(_Small(model), None, hidden=(TOKENS, WIDTH), dtype=dtype, twice=model.sizes.twice)
    method.reset()
    try:
        generate(stage, method, None, 0, [])
        return sum(_full(tensor, model.sizes) for tensor in method.state())
    finally:
        method.reset()


def _full(tensor: Any, sizes: Any) -> int:
    """Bytes of a small tensor at full size, by the number that its last dimensions hold."""
    shape = tuple(tensor.shape)
    numbers, itemsize = tensor.numel(), tensor.element_size()
    if shape[-2:] == (TOKENS, WIDTH):
        return numbers // (TOKENS * WIDTH) * sizes.tokens * sizes.width * itemsize
    if shape[-1:] == (WIDTH,):
        return numbers // WIDTH * sizes.width * itemsize
    full = {LATENT: sizes.latent, **{SIGNALS[name]: count for name, count in sizes.signals.items()}}
    return numbers // shape[-1] * full[shape[-1]] * itemsize if shape and shape[-1] in full else numbers * itemsize


class _Small(Blank):
    """A backbone with a few numbers per slot, and the rows in which most slots are active."""

    def __init__(self, plan: Any) -> None:
        super().__init__(plan)
        rows: Sequence[Row] = plan.schedule()
        at = max(range(len(rows)), key=lambda i: (len(rows[i].updating), -i))
        self.rows = rows[at : at + ROWS]

    def schedule(self) -> Sequence[Row]:
        """A few rows of the middle of the video."""
        return self.rows

    def start(self, text: Any, seed: int) -> Any:
        """Latents of LATENT numbers per slot."""
        import torch

        return torch.zeros(max(row.slots.stop for row in self.plan.schedule()), 1, 1, LATENT)

    def probe(self, name: str, latents: Any, row: Row) -> Any:
        """A signal of as many numbers per slot as SIGNALS says."""
        import torch

        return torch.zeros(len(row.slots), *((1, 1) if name == "latent" else ()), SIGNALS[name])
