"""SCOPE (Cui et al. 2026, "Not All Frames Deserve Full Computation"): cache, predict or recompute.

    d_i = mean|f_i - f_{i-1}| / (mean|f_{i-1}| + eps)              discrepancy of a signal, no forward needed   (Eq. 4)
    S_i = A_{i-1} + d_i                                            the score, before the decision
    mode = CACHE      if               S_i < tau_cache
           PREDICT    if  tau_cache <= S_i < tau_predict           if history suffices                          (Eq. 3)
           RECOMPUTE  otherwise, and after max_skip steps without one
    A_i = S_i after CACHE,  decay S_i after PREDICT,  0 after RECOMPUTE                                         (Eq. 5)

CACHE reuses the last velocity. PREDICT extrapolates it along the noise level (`predictors.py`, Eq. 6-7). `selective.py`
restricts forwards to the active frames (Eq. 8-9). `stability.py` bounds predictions. `risk` turns on RACER's blend;
with `predictor: spectrum` it is RACER's own. The velocity is taken after guidance, so one decision saves both guidance
branches.

What the paper leaves open, and our choices:

* Our copy of the text refers to Eq. 4 and 5 but prints neither. The norm (relative L1, as in TeaCache and FlowCache),
  the feature and the update of A are reconstructed from its description.
* State is kept per latent slot, because the interval moves. The score of a row is the largest of its active slots. A
  slot that has just started has no history, so its row is recomputed.
* History suffices for PREDICT if every active slot can be extrapolated. With two anchors only, the order is lowered
  (`history: recompute` recomputes instead). In the Predict band a velocity is never reused without extrapolation.
* The decay multiplies the score by less than 1. So it *delays* the next recompute, although the text says the opposite.
  `decay: 1` turns it off.
* On MAGI-1 "decisions naturally operate per chunk" (Sec. 3.1), so its operating points have `decide_per: unit`. On
  SkyReels-V2 there is one decision per iteration. On `magi1_tiny` a decision per row would be closer to the Original:
  LPIPS 0.027 instead of 0.063, at 0.309 of the FLOPs, on two calibration prompts.

Site: velocity, and the slots that a forward covers.
Signal: the time projection by default, which depends on the timesteps alone; or any other signal of the backbone.
Memory: order + 1 latents (16 with `predictor: spectrum`), and the signal's last value.
Released: no code is public; Eq. 3 as printed; shown by
tests/test_scope.py::test_in_the_predict_band_one_anchor_recomputes.
Changed: per-slot state, stability checks, and parameters for every point that the paper leaves open, as above. The
paper's own numbers are the operating point `paper` of every model; `slow` and `fast` of the tiny models are tuned.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import reduce

import torch

from engine.discrepancy import Discrepancy
from engine.history import column, steps_of
from engine.knob import Knob
from engine.method import Capabilities, Method, Probe
from engine.row import VELOCITY, Decision, Mode, Row, Site
from engine.to_device import picked
from scope import selective, stability
from scope.predictors import ORDER, Guards, Predictor


@dataclass
class Scope(Method):
    """Decides by two thresholds on the signal's change; predicts with the predictor that is set."""

    tau_cache: float  # raising it: more steps reuse an old velocity; faster, larger errors
    tau_predict: float  # raising it: more steps are extrapolated instead of computed; faster, larger errors
    decay: float = 0.75  # factor on the score after a Predict; raising it towards 1: earlier recomputes, slower
    max_skip: int = 5  # largest number of steps without a forward; raising it: faster, larger errors
    predictor: str = "newton2"  # taylor1 | newton2 | taylor2 | momentum | hicache | foca | spectrum | auto
    history: str = "lower"  # if anchors are too few for the order: "lower" the order (two anchors), or "recompute"
    signal: str = "time_projection"  # of the discrepancy, any of the backbone; "latent" depends on the content
    reference: str = "previous"  # compare with the "previous" step or with the last "recompute"
    rescale: str = "none"  # "none"; "poly": apply the polynomial `coefficients` to the discrepancy, as in TeaCache
    coefficients: list[float] = field(default_factory=list)  # of rescale: poly, highest power first
    reuse: str = "velocity"  # Cache reuses the "velocity", or the last "increment" of the latent, for any step length
    selective: str = "prefix"  # none | prefix | hull | exact (block-causal only): the frames that a forward covers
    interval_ratio: list[float] = field(default_factory=list)  # share of the prefix by stage; raising: slower; []: all
    decide_per: str = "row"  # "row"; "unit": a decision per chunk, if the backbone can forward a part of a row
    warmup: int = 1  # first steps of a slot that are always computed; raising it: slower, smaller errors at the start
    cooldown: int = 0  # last steps of a slot that are always computed; raising it: slower, sharper
    beta: float = 0.7  # weight of older slopes in momentum; raising it: smoother, slower response
    rho_max: float = 6.0  # largest extrapolation distance / last gap between anchors; raising it: more extrapolation
    min_gap: float = 1e-6  # anchors with a smaller gap lower the order; raising it: lower orders, steadier
    clip: float = 0.5  # limit of the relative correction to the last velocity; raising it: larger steps; inf: no limit
    reject: float = math.inf  # larger corrections recompute; costs a prediction; raising it: faster; inf: never
    risk: float = math.inf  # RACER's limit of the risk; raising it: more of the prediction in its blend; inf: no blend
    amplitude: float = math.inf  # limit beyond the channel's last range; raising it: larger predictions; inf: any
    eps: float = 1e-8  # in Eq. 4; raising it: lower scores where the signal is small, faster

    knobs = (
        Knob("tau_predict", 1e-3, 10.0, follows={"tau_cache": 0.43}),
        Knob("max_skip", 1, 10, whole=True),
        Knob("warmup", 8, 1, whole=True),
    )

    def __post_init__(self) -> None:
        if not (0 <= self.tau_cache <= self.tau_predict):
            raise ValueError(
                f"want 0 <= tau_cache <= tau_predict, got tau_cache={self.tau_cache} and tau_predict={self.tau_predict}"
            )
        _within("decay", self.decay, 0, 1)
        _within("beta", self.beta, 0, 0.999)
        for name in ("max_skip", "warmup", "cooldown"):
            _within(name, getattr(self, name), 0, math.inf)
        for name in ("rho_max", "min_gap", "clip", "reject", "risk", "amplitude", "eps"):
            if not getattr(self, name) > 0 and not (name in ("clip", "risk", "amplitude") and getattr(self, name) == 0):
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        _one_of("predictor", self.predictor, *ORDER)
        _one_of("history", self.history, "lower", "recompute")
        _one_of("reference", self.reference, "previous", "recompute")
        _one_of("rescale", self.rescale, "none", "poly")
        _one_of("reuse", self.reuse, "velocity", "increment")
        _one_of("selective", self.selective, *selective.CHOICES)
        if len(self.interval_ratio) not in (0, 3) or not all(0 <= share <= 1 for share in self.interval_ratio):
            raise ValueError(f"interval_ratio wants no value or three shares from 0 to 1, got {self.interval_ratio}")
        if self.interval_ratio and self.selective != "prefix":
            raise ValueError(f"interval_ratio needs selective=prefix, got selective={self.selective}; set one of them")
        _one_of("decide_per", self.decide_per, "row", "unit")
        if self.rescale == "poly" and not self.coefficients:
            raise ValueError("rescale=poly needs coefficients, highest power first; see benchmarks/fit_teacache.py")
        self.reset()

    @property
    def grain(self) -> str:
        return self.decide_per

    @property
    def requires(self) -> frozenset[str]:
        needs = {self.signal}
        if self.selective != "none":
            needs.add("narrow")
        if self.selective == "exact":
            needs.add("settled")
        if self.decide_per == "unit":
            needs.add("partial")
        return frozenset(needs)

    def check(self, model: Capabilities) -> None:
        super().check(model)
        steps, wanted = model.schedule()[0].steps, ORDER[self.predictor] + 1
        if steps <= wanted:
            raise ValueError(
                f"predictor={self.predictor} needs more than {wanted} steps per slot, and {model.name} has {steps}; "
                f"choose a predictor of a lower order, or at least {wanted + 1} steps"
            )

    def reset(self) -> None:
        self.discrepancy = Discrepancy(self.eps)
        self.score: dict[int, float] = {}  # A, per slot
        self.skipped: dict[int, int] = {}  # steps since the last forward of each slot
        self.predictor_ = Predictor(self.predictor, Guards(self.rho_max, self.min_gap), self.beta)
        self.step: dict[int, float] = {}  # change of noise level in the last forward of each slot
        self.tally: Counter[str] = Counter()
        self._flags: dict[str, list[torch.Tensor]] = {"clipped": [], "risky": []}  # on the device until counted

    def narrow(self, row: Row) -> Row:
        return selective.narrow(row, self.selective, self.interval_ratio)

    def decide(self, part: Row, probe: Probe, branch: str = "") -> Decision:
        slots = part.updating
        signal = probe(self.signal)[_cut(part, slots)]
        measured = self._measured(part, slots, signal)
        for slot, d in zip(slots, measured, strict=True):
            self.score[slot] = self.score.get(slot, 0.0) + (self._rescaled(d) if d is not None else 0.0)
        if self.reference == "previous":
            self.discrepancy.remember(slots, signal, part.settled)
        else:
            self._pending = (slots, signal)
        score = max(self.score[slot] for slot in slots)
        mode, why = self._mode(part, slots, score)
        return Decision(mode, score, why)

    def _measured(self, part: Row, slots: Sequence[int], signal: torch.Tensor) -> list[float | None]:
        """The discrepancy of every slot, and all that the decision needs from the device, in one transfer."""
        waiting = self.predictor_.pending
        trials = self.predictor_.corrections(slots, _levels(part, slots)) if self.reject < math.inf else {}
        found, told = self.discrepancy.measured(slots, signal, [*waiting, *trials.values()])
        self.predictor_.take(told[: len(waiting)])
        self.corrections = {name: told[len(waiting) + i][0] for i, name in enumerate(trials)}
        return found

    def _mode(self, part: Row, slots: Sequence[int], score: float) -> tuple[Mode, str]:
        """Mode and reason by Eq. 3 and its preconditions."""
        steps = dict(zip(part.slots, part.step, strict=True))
        history = self.predictor_.history
        if any(history.count(slot) == 0 for slot in slots):
            return Mode.RECOMPUTE, "no history"
        if not all(math.isfinite(self.score[slot]) for slot in slots):  # max() may ignore a NaN
            return Mode.RECOMPUTE, "signal not finite"
        if any(steps[slot] < self.warmup for slot in slots):
            return Mode.RECOMPUTE, "warm-up"
        if any(part.steps - steps[slot] <= self.cooldown for slot in slots):
            return Mode.RECOMPUTE, "cool-down"
        if max(self.skipped.get(slot, 0) for slot in slots) >= self.max_skip:
            return Mode.RECOMPUTE, "max_skip"
        if score < self.tau_cache:
            return Mode.CACHE, ""
        if score >= self.tau_predict:
            return Mode.RECOMPUTE, "score"
        return self._candidate(part, slots)

    def _candidate(self, part: Row, slots: Sequence[int]) -> tuple[Mode, str]:
        """PREDICT, or RECOMPUTE if history does not suffice or a stability check fails."""
        wanted = ORDER[self.predictor_.chosen]
        orders = self.predictor_.orders(slots, _levels(part, slots))
        if min(orders) == 0 or (min(orders) < wanted and self.history == "recompute"):
            self.tally["short history"] += 1
            return Mode.RECOMPUTE, "short history"
        if min(orders) < wanted:
            self.tally["order lowered"] += 1
        if self.reject < math.inf:
            largest = self.corrections[self.predictor_.chosen]  # NaN if one is NaN
            if not largest <= self.reject:
                self.tally["rejected"] += 1
                return Mode.RECOMPUTE, "correction not a number" if math.isnan(largest) else "correction too large"
        return Mode.PREDICT, ""

    def settle(self, part: Row, decision: Decision, branch: str = "") -> None:
        fresh = decision.mode is Mode.RECOMPUTE
        factor = {Mode.CACHE: 1.0, Mode.PREDICT: self.decay, Mode.RECOMPUTE: 0.0}[decision.mode]
        for slot in part.updating:
            self.score[slot] = 0.0 if fresh else self.score[slot] * factor
            self.skipped[slot] = 0 if fresh else self.skipped.get(slot, 0) + 1
        if self.reference == "recompute":
            new = [slot for slot in self._pending[0] if fresh or not self.discrepancy.knows(slot)]
            if new:
                where = [self._pending[0].index(slot) for slot in new]
                self.discrepancy.remember(new, picked(self._pending[1], where), part.settled)
            if not fresh:  # with a fixed reference the discrepancy is not accumulated
                for slot in part.updating:
                    self.score[slot] = 0.0

    def sites(self, depth: int, row: Row) -> Sequence[Site]:
        return (VELOCITY,)

    def keep(self, site: Site, part: Row, x: torch.Tensor, out: torch.Tensor) -> None:
        slots = part.updating
        self.predictor_.keep(slots, _levels(part, slots), out[_cut(part, slots)], part.settled)
        self.step |= steps_of(part)

    def fill(self, site: Site, part: Row, mode: Mode, x: torch.Tensor) -> torch.Tensor:
        slots = part.updating
        last = self.predictor_.history.last(slots)
        if mode is Mode.PREDICT:
            velocity = self._steadied(slots, _levels(part, slots), last)
        elif self.reuse == "velocity":
            velocity = last
        else:
            now = steps_of(part)
            velocity = last * column([self.step[slot] / now[slot] for slot in slots], last)
        if len(slots) == len(part.slots):
            return velocity
        out = torch.zeros_like(x)  # idle frames are not stepped, so their velocity is never read
        out[_cut(part, slots)] = velocity
        return out

    def _steadied(self, slots: Sequence[int], at: Sequence[float], last: torch.Tensor) -> torch.Tensor:
        """The prediction after the checks `risk`, `clip` and `amplitude`, without a transfer to the host."""
        predicted = self.predictor_.predict(slots, at)
        if self.risk < math.inf:
            waited = [self.skipped.get(slot, 1) for slot in slots]
            line = self.predictor_.line(slots, at)
            predicted, risky = stability.blend(predicted, line, last, self.risk, waited)
            self._flags["risky"].append(risky)
        ratio = stability.correction(predicted, last)
        if self.clip < math.inf:
            self._flags["clipped"].append((ratio > self.clip).any())
            predicted = stability.clipped(predicted, last, ratio, self.clip)
        if self.amplitude < math.inf:
            predicted = stability.in_range(predicted, last, self.amplitude)
        return stability.finite_or_last(predicted, last, ratio)

    def _rescaled(self, d: float) -> float:
        if self.rescale == "none":
            return d
        return reduce(lambda total, c: total * d + c, self.coefficients, 0.0)

    def state(self) -> Iterable[torch.Tensor]:
        return (*self.predictor_.tensors(), *self.discrepancy.tensors())

    def counters(self) -> dict[str, int]:
        raised = {name: torch.stack(flags).sum() for name, flags in self._flags.items() if flags}
        counts = torch.stack(list(raised.values())).tolist() if raised else []
        return dict(self.tally) | {name: count for name, count in zip(raised, counts, strict=True) if count}


def _cut(part: Row, slots: Sequence[int]) -> slice:
    """The position of the active slots, which are contiguous, in the part's tensors."""
    return slice(slots[0] - part.slots.start, slots[-1] + 1 - part.slots.start)


def _levels(part: Row, slots: Sequence[int]) -> list[float]:
    return [part.sigma[slot - part.slots.start] for slot in slots]


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} must lie in [{low}, {high}], got {value}")


def _one_of(name: str, value: str, *allowed: str) -> None:
    if value not in allowed:
        raise ValueError(f"{name} is one of {', '.join(allowed)}, got {value!r}")
