"""Figure 2: reused and predicted velocities, compared with the computed velocity.

    python run.py experiment=fig2 [model=skyreels_tiny]

The Original runs on 16 prompts of the set, or on all of your own. Each computed velocity is compared with values from
earlier steps, for k = 1 to 6: the velocity of k steps before (reuse), and Newton's polynomials of first and second
order through this velocity and its one or two predecessors (SCOPE's Eq. 6 and 7). These values do not influence the
video, so the errors are those of single steps. Over the last six steps of one frame the mean absolute deviations are
summed: the paper reports 72 % less for prediction.

RESULTS/trajectory/<model>/original.json holds all results. They are measured again only if weights, settings, prompts
or seed change.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from engine.forecast import newton
from engine.loop import generate
from engine.method import Method
from engine.row import VELOCITY, Row, Site
from store import Store, fingerprint, writing
from sweep.cell import Cell
from sweep.events import Notify, nobody, out

HORIZONS = 6  # most steps since the last forward; raising it: longer runs of skipped steps
STAND_INS = ("reuse", "taylor1", "newton2")  # polynomials of order 0, 1, 2
SLOT = 13  # the paper's frame, or the last one of a shorter video


class Watch(Method):
    """Runs the Original and measures `errors[step, k]` per stand-in, summed over slots, and the course of one slot."""

    def __init__(self, slot: int) -> None:
        self.slot = slot
        self.levels: dict[int, float] = {}
        self.errors: dict[tuple[int, int], Tensor] = {}
        self.counts: dict[tuple[int, int], int] = defaultdict(int)
        self.course: dict[tuple[int, int], Tensor] = {}  # one slot: deviations, then root mean squares
        self.reset()

    def reset(self) -> None:
        self.past: dict[int, list[tuple[float, Tensor]]] = defaultdict(list)

    def sites(self, depth: int, row: Row) -> Sequence[Site]:
        return (VELOCITY,)

    def keep(self, site: Site, part: Row, x: Tensor, out: Tensor) -> None:
        first = part.slots.start
        for slot in part.updating:
            step, level, truth = part.step[slot - first], part.sigma[slot - first], out[slot - first].float()
            past = self.past[slot]
            self.levels[step] = level
            for k in range(1, min(HORIZONS, len(past)) + 1):
                self._compare(slot, step, k, past[: len(past) - k + 1][-3:], level, truth)
            self.past[slot] = [*past, (level, truth.clone())][-(HORIZONS + 2) :]

    def _compare(
        self, slot: int, step: int, k: int, anchors: list[tuple[float, Tensor]], level: float, truth: Tensor
    ) -> None:
        if len(anchors) < len(STAND_INS):
            return
        guesses = [newton(anchors[-order - 1 :], level) for order in range(len(STAND_INS))]
        apart = torch.stack([(guess - truth).abs().mean() for guess in guesses])
        found = apart / truth.abs().mean().clamp(min=1e-12)
        at = (step, k)
        self.errors[at] = self.errors[at] + found if at in self.errors else found
        self.counts[at] += 1
        if slot == self.slot:
            sizes = [tensor.square().mean().sqrt() for tensor in (truth, *guesses)]
            self.course[at] = torch.cat([apart, torch.stack(sizes)])

    def state(self) -> Iterable[Tensor]:
        return [velocity for past in self.past.values() for _, velocity in past]


def run(cell: Cell, store: Store, notify: Notify = nobody) -> list[str]:
    """Run the Original and write the errors to the store's folder, unless they are there."""
    model, seed = cell.model, cell.run.seeds[0]
    path = store.root / "trajectory" / model.name / "original.json"
    identity = fingerprint({"key": [job.produced_by for job in cell.jobs()], "horizons": HORIZONS, "slot": SLOT})
    if path.exists() and json.loads(path.read_text()).get("identity") == identity:
        out.print(f"{model.name} trajectory: nothing to do, the result is in the store")
        return []
    model.load()
    texts = model.texts(cell.prompts, store.cache("text", "x").parent)
    found: dict[str, Any] = {
        "identity": identity,
        "model": model.name,
        "weights": model.settings.weights,
        "seed": seed,
        "prompts": cell.prompts,
        "stand_ins": STAND_INS,
        "horizons": HORIZONS,
        "slot": min(SLOT, max(row.slots.stop for row in model.schedule()) - 1),
        "videos": [],
    }
    for number, prompt in enumerate(cell.prompts):
        watch = Watch(found["slot"])
        generate(model, watch, model.conditioning(prompt, texts), seed, [])
        found["levels"] = [watch.levels[step] for step in sorted(watch.levels)]
        found["videos"].append(_told(watch))
        out.print(f"{model.name} trajectory: prompt {number + 1} of {len(cell.prompts)}")
    with writing(path) as draft:
        draft.write_text(json.dumps(found))
    return []


def _told(watch: Watch) -> dict[str, Any]:
    """One video. `errors[stand-in][k - 1][step]` is relative to the velocity's size, null with too few earlier steps;
    `course` has the sizes and absolute deviations of truth and stand-ins in the last steps of the chosen slot."""
    steps = len(watch.levels)
    means = {at: (total / watch.counts[at]).tolist() for at, total in watch.errors.items()}
    errors = {
        name: [[means[s, k][n] if (s, k) in means else None for s in range(steps)] for k in range(1, HORIZONS + 1)]
        for n, name in enumerate(STAND_INS)
    }
    window = [(steps - HORIZONS + k, k + 1) for k in range(HORIZONS)]  # consecutive steps after the last forward
    course = [watch.course[at].tolist() for at in window if at in watch.course]
    n = len(STAND_INS)
    return {
        "errors": errors,
        "course": {
            "step": [step for step, k in window if (step, k) in watch.course],
            "truth": [values[n] for values in course],
            **{name: [values[n + 1 + i] for values in course] for i, name in enumerate(STAND_INS)},
            "deviation": {name: [values[i] for values in course] for i, name in enumerate(STAND_INS)},
        },
    }
