"""DSA (arXiv 2606.04432): a head that was trained with a few-step generator decides how many steps a chunk gets.

    d_f    = g(last hidden states of frame f in the last pass, t, r)     expected error of ending now, see below
    doubt  = max over the frames of the chunk (or their mean)
    doubt < stop:    the next pass leads straight to the end             stopped early
    doubt > refine:  the next pass leads one step on                     refined; so does a doubt that is no number
    else:            the next pass leads `stride` steps on

d estimates e = mean|x - z_0| / mean|z_0|: x is where one last pass from here ends, z_0 is where all steps end. So doubt
is what stopping now costs, and the head is asked after every pass. AnyFlow-FAR learns the mean velocity between any two
times, so one pass may lead over several steps; the skipped rows repeat its velocity, which ends at the same latents. A
chunk takes at least 2 passes, because the head judges a pass that was made.

Only the abstract is public: the confidence is per frame, it was trained jointly, simple frames end early and complex
ones get more steps. `models.train_far_dsa` trains the head and says what its target and objective are. The frames of a
chunk share one time in this model, so the head judges frames and a chunk stops as a whole.
`stop: 0, stride: 1` is the Original bit for bit.

Site: velocity; the last block is watched.
Signal: the last hidden states; depends on the content and costs a small network per pass.
Memory: 1 latent (a velocity).
Changed: head, target, objective and thresholds are ours, since only the abstract was available; no distribution
matching; a chunk's frames stop together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from baselines.shared.cadence import one_of, within
from engine.confidence_head import Head, pooled, read_about, read_weights
from engine.history import History
from engine.knob import Knob
from engine.method import Capabilities, Method, Probe
from engine.row import VELOCITY, Decision, Mode, Row, Site
from engine.weights import WeightsError, digest

if TYPE_CHECKING:
    from torch import Tensor

    from engine.footprint import Sizes

ROOT = Path(__file__).resolve().parents[1]
MAKER = "python -m models.train_far_dsa"


@dataclass
class DSA(Method):
    """Lets a trained head choose how far the next pass of a chunk leads."""

    knobs = (Knob("stop", 1e-3, 10.0),)

    head: str  # a file of models.train_far_dsa, also relative to the project; it names its model and numbers of steps
    stop: float  # expected error below which a chunk ends with the next pass; raising it: fewer passes, larger errors
    refine: float = math.inf  # expected error above which a pass is one step; lowering it: slower, smaller errors
    stride: int = 1  # steps of the schedule that a pass leads over otherwise; raising it: faster, larger errors
    over: str = "max"  # the doubt of a chunk: the "max" of its frames, or their "mean", which stops earlier

    def __post_init__(self) -> None:
        within("stop", self.stop, 0, math.inf)
        within("refine", self.refine, self.stop, math.inf)
        within("stride", self.stride, 1, math.inf)
        one_of("over", self.over, "max", "mean")
        path = _found(self.head)
        self.judge, self.about = Head(**read_weights(path, MAKER)), read_about(path)
        if not {"model", "weights", "steps"} <= set(self.about):
            raise ValueError(f"head={path} does not say which model it was made for; want a file of {MAKER}")
        self.head = f"head {digest([path])}"  # the record's key has the content, not the path
        self.levels: dict[int, float] = {}  # noise level of every step of the model
        self.reset()

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"aim", "blocks", "nested"})

    def check(self, model: Capabilities) -> None:
        super().check(model)
        made, listed = self.about["model"], ", ".join(map(str, self.about["steps"]))
        if _weights(model) != self.about["weights"]:
            raise ValueError(
                f"this head was trained together with {made}, and {model.name} has other weights; set model={made}, or "
                f"train a head for it with {MAKER}"
            )
        if not model.settings.use_mean_velocity:
            raise ValueError("DSA needs passes over several steps; set model.use_mean_velocity=true")
        steps = model.settings.steps
        if steps not in self.about["steps"]:
            near = min(self.about["steps"], key=lambda n: abs(n - steps))
            raise ValueError(
                f"this head was trained for {listed} steps, and model.steps={steps}; set model.steps={near}"
            )
        rows = [row for row in model.schedule() if row.updating]
        self.levels = {row.step[0]: row.sigma[0] for row in rows} | {steps: rows[-1].sigma_next[0]}

    def reset(self) -> None:
        self.velocity = History(1)
        self.doubts: Tensor | None = None  # of the chunk's frames after its last pass, (slots,)
        self.doubt: float | None = None  # of the chunk
        self.until = 0  # the step that the last pass leads to
        self.taken = {"stopped early": 0, "refined": 0}

    def narrow(self, row: Row) -> Row:
        """The same slots; it says where the pass is to lead."""
        if not row.updating:
            return row
        step = row.step[0]
        if step == 0:
            self.doubts, self.doubt, self.until = None, None, 0
        if step < self.until:
            return row
        self.doubt = (
            None if self.doubts is None else float(self.doubts.max() if self.over == "max" else self.doubts.mean())
        )
        self.until = min(row.steps, step + self._stride(row.steps - step))
        return replace(row, aim=self.until)

    def _stride(self, left: int) -> int:
        """How many of the `left` steps the next pass is to lead over."""
        if self.doubt is None:
            return self.stride
        if self.doubt < self.stop:
            self.taken["stopped early"] += left > self.stride
            return left
        if not self.doubt <= self.refine:  # a doubt that is no number asks for the smallest step
            self.taken["refined"] += min(left, self.stride) > 1
            return 1
        return self.stride

    def decide(self, part: Row, probe: Probe, branch: str = "") -> Decision:
        return Decision(Mode.RECOMPUTE if part.aim else Mode.CACHE, self.doubt, "" if self.doubt else "first pass")

    def sites(self, depth: int, row: Row) -> Sequence[Site]:
        return (VELOCITY, Site("blocks", range(depth - 1, depth)))

    def keep(self, site: Site, part: Row, x: Tensor, out: Tensor) -> None:
        if site.kind == "velocity":
            self.velocity.push(part.updating, part.sigma, out, part.settled)
        elif site.branch != "uncond":  # the head was trained without guidance
            self.judge = self.judge.to(out.device)
            level = lambda value: torch.full(out.shape[:1], value, device=out.device)  # noqa: E731
            found = pooled(out, level(part.sigma[0]), level(self.levels[self.until]))
            self.doubts = 10 ** self.judge.log10(found)

    def fill(self, site: Site, part: Row, mode: Mode, x: Tensor) -> Tensor:
        return self.velocity.last(part.updating)

    def footprint(self, sizes: Sizes, depth: int, branches: int) -> float:
        return 4 * (sizes.latent + 1)  # the velocity and the doubt

    def state(self) -> Iterable[Tensor]:
        return (*self.velocity.tensors(), *(() if self.doubts is None else (self.doubts,)))

    def counters(self) -> dict[str, int]:
        return dict(self.taken)


def _found(head: str) -> Path:
    """The file, where it stands or in the project."""
    own = Path(head).expanduser()
    return own if own.is_file() else ROOT / own


def _weights(model: Capabilities) -> str:
    """The identity of the model's weights; "" where there are none."""
    try:
        return str(getattr(model, "weights_id", ""))
    except WeightsError:
        return ""
