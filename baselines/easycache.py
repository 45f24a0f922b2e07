"""EasyCache (Zhou et al. 2025, "Less is Enough", arXiv 2507.02860, Sec. 3): the input's change estimates the output's.

    k    = ||v_n - v_m|| / ||x_n - x_m||               over the last two computed steps m < n: nearly constant   (Eq. 3)
    e_i  = k ||x_i - x_{i-1}|| / ||v_n||               estimated relative change of the output in one step       (Eq. 4)
    E   += e_i;  reuse while E < threshold, else compute and E = 0                                               (Eq. 5)
    v_i  = x_i + (v_n - x_n)                           the reused transformation                                 (Eq. 6)

x is the latent and v the velocity after guidance; norms are means of absolute values. The method uses only the input
and the output of the model.

Site: velocity.
Signal: the latent; depends on the content.
Memory: 3 latents (the last input, the last computed input and output).
Released: decisions and outputs, yes, for one branch; shown by
tests/test_releases.py::test_easycache_decides_and_reuses_as_its_release.
Changed: k, E and the norms are kept per latent slot, and the largest E of the updating slots decides for the row. One
decision for both guidance branches uses the guided velocity; the released code uses the conditional branch. Warm-up is
counted in a slot's own steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from baselines.shared.cadence import asks, own_steps, within
from engine.history import History
from engine.knob import Knob
from engine.method import Method, Probe
from engine.row import VELOCITY, Decision, Mode, Row, Site
from engine.to_device import picked

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class EasyCache(Method):
    """Reuses the difference between velocity and latent while the estimated change is small."""

    threshold: float  # raising it: more steps reuse; faster, larger errors
    warmup: int = 10  # first steps of a slot that are always computed; raising it: slower, smaller errors
    cooldown: int = 1  # last steps of a slot that are always computed; raising it: slower, sharper

    least_steps = 3
    knobs = (Knob("threshold", 1e-4, 10.0), Knob("warmup", 20, 1, whole=True))

    def __post_init__(self) -> None:
        within("threshold", self.threshold, 0, float("inf"))
        within("warmup", self.warmup, 0, float("inf"))
        within("cooldown", self.cooldown, 0, float("inf"))
        self.reset()

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"latent"})

    def reset(self) -> None:
        self.previous, self.input, self.output = History(1), History(1), History(1)
        self.gain: dict[int, Tensor] = {}  # k / ||v_n||, on the device
        self.change: dict[int, float] = {}  # E

    def decide(self, part: Row, probe: Probe, branch: str = "") -> Decision:
        slots, cut = part.updating, _active(part)
        x = probe("latent")[cut]
        known = all(slot in self.gain for slot in slots)
        if known:
            moved = _size(x - self.previous.last(slots)) * torch.stack([self.gain[slot] for slot in slots])
            for slot, estimate in zip(slots, moved.tolist(), strict=True):
                self.change[slot] = self.change.get(slot, 0.0) + estimate
        self.previous.push(slots, part.sigma[cut], x, part.settled)
        if not known:
            return Decision(Mode.RECOMPUTE, why="no history")
        score = max(self.change[slot] for slot in slots)
        done, left = own_steps(part)
        if done < self.warmup:
            return Decision(Mode.RECOMPUTE, score, "warm-up")
        if left <= self.cooldown:
            return Decision(Mode.RECOMPUTE, score, "cool-down")
        why = asks((self.change[slot] for slot in slots), self.threshold)
        return Decision(Mode.RECOMPUTE if why else Mode.CACHE, score, why)

    def settle(self, part: Row, decision: Decision, branch: str = "") -> None:
        if decision.mode is Mode.RECOMPUTE:
            self.change.update(dict.fromkeys(part.updating, 0.0))

    def sites(self, depth: int, row: Row) -> Sequence[Site]:
        return (VELOCITY,)

    def keep(self, site: Site, part: Row, x: Tensor, out: Tensor) -> None:
        slots, cut = part.updating, _active(part)
        x, out = x[cut], out[cut]
        seen = [i for i, slot in enumerate(slots) if self.output.count(slot)]
        if seen:
            old = [slots[i] for i in seen]
            gain = _size(picked(out, seen) - self.output.last(old)) / _size(picked(x, seen) - self.input.last(old))
            for slot, value in zip(old, gain / _size(picked(out, seen)), strict=True):
                self.gain[slot] = value
        self.input.push(slots, part.sigma[cut], x, part.settled)
        self.output.push(slots, part.sigma[cut], out, part.settled)

    def fill(self, site: Site, part: Row, mode: Mode, x: Tensor) -> Tensor:
        slots, cut = part.updating, _active(part)
        out = torch.zeros_like(x)  # idle frames are not stepped, so their velocity is never read
        out[cut] = x[cut] + (self.output.last(slots) - self.input.last(slots))
        return out

    def state(self) -> Iterable[Tensor]:
        return (*self.previous.tensors(), *self.input.tensors(), *self.output.tensors(), *self.gain.values())


def _active(part: Row) -> slice:
    """Where the updating slots, which are contiguous, lie in the part's tensors."""
    return slice(part.updating[0] - part.slots.start, part.updating[-1] + 1 - part.slots.start)


def _size(x: Tensor) -> Tensor:
    return x.abs().flatten(1).mean(1)
