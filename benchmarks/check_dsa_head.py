"""Measures DSA's head where it decides: on videos of held-out prompts that the model itself makes.

    python -m benchmarks.check_dsa_head [model.steps=8] [count=16] [write=true] [settings of the model ...]

Every chunk takes all its steps. After every pass but the last two, the error of one pass from there to the end is
measured against where all steps end, and compared with what the head expected (both as log10, per frame):

    correlation      over all passes and frames; and within passes of the same step, because the step alone tells much
    r_squared        of the head; and of the mean measured error of the step, which a fixed schedule knows as well
    bins             fifths of what the head expected: the mean of its expectations and of the measured errors

With `write=true` the result is added to `calibration.json` in the folder of the model's weights; the card is written
from it. The last line is one JSON object.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from baselines.dsa import DSA
from benchmarks.common import composed, prompts_of, watched
from conf.schema import CONF
from engine.backbone import Backbone
from engine.confidence_head import LOWEST
from engine.discrepancy import relative_l1
from engine.loop import decide
from engine.method import Original
from engine.row import Decision, Mode, Row
from engine.visit import Visit
from store import writing
from terminal import tolerate

BINS = 5


@torch.inference_mode()
def watch(model: Backbone, method: DSA, text: Any, seed: int) -> np.ndarray:
    """One video with every step: lines (step, expected error, measured error), as log10, one per pass and frame.

    `method` must never stop and have a stride of 1.
    """
    latents, rows, found = model.start(text, seed), model.schedule(), list[np.ndarray]()
    latents = model.open(latents, rows[0])
    method.reset()
    ends: list[tuple[int, Tensor, Tensor]] = []  # of a chunk: step, expected errors, where one last pass would end
    for row, following in zip(rows, [*rows[1:], rows[-1]], strict=True):
        row = method.narrow(row)
        plan = decide(model, method, latents, row)
        latents = model.advance(latents, row, model.velocity(latents, row, Visit(method, row, model.depth, plan)))
        step, slots = row.step[0], slice(row.slots.start, row.slots.stop)
        if row.updating and row.steps - step > 2:  # with one step left, the next pass is the last in any case
            assert method.doubts is not None
            ends.append((step, method.doubts.clone(), _last_pass(model, following, latents)))
        if row.updating and step + 1 == row.steps:
            for at, doubts, end in ends:
                errors = relative_l1(end, latents[slots], 0).clamp(min=LOWEST)
                lines = [torch.full_like(errors, at), doubts.log10(), errors.log10()]
                found.append(torch.stack(lines, 1).cpu().numpy())
            ends = []
    return np.concatenate(found)


def _last_pass(model: Backbone, row: Row, latents: Tensor) -> Tensor:
    """The latents (slots, C, H, W) of the row's chunk after one pass from this row to the end."""
    row = replace(row, aim=row.steps)
    whole = {"": [(row, Decision(Mode.RECOMPUTE))]}
    velocity = model.velocity(latents, row, Visit(Original(), row, model.depth, whole))
    return latents[row.slots.start : row.slots.stop] - row.sigma[0] * velocity


def told(lines: np.ndarray) -> dict[str, Any]:
    """Correlation and calibration of lines (step, expected, measured), see the module."""
    step, expected, measured = lines.T
    means = {k: measured[step == k].mean() for k in np.unique(step)}
    usual = np.array([means[k] for k in step])
    within = {
        int(k): round(float(np.corrcoef(expected[step == k], measured[step == k])[0, 1]), 3)
        for k in means
        if (step == k).sum() > 2 and expected[step == k].std() > 0
    }
    order = np.argsort(expected)
    bins = [
        {"expected": float(10 ** expected[part].mean()), "measured": float(10 ** measured[part].mean())}
        for part in np.array_split(order, BINS)
    ]
    return {
        "passes": len(lines),
        "correlation": round(float(np.corrcoef(expected, measured)[0, 1]), 3),
        "correlation_within_step": within,
        "r_squared": _explained(expected, measured),
        "r_squared_of_the_step_alone": _explained(usual, measured),
        "rank_correlation": round(float(spearmanr(expected, measured).statistic), 3),
        "bins": bins,
    }


def _explained(guess: np.ndarray, measured: np.ndarray) -> float:
    return round(float(1 - ((measured - guess) ** 2).sum() / ((measured - measured.mean()) ** 2).sum()), 3)


def main(arguments: Sequence[str]) -> None:
    own = {"count": "16", "write": "false"}
    own |= dict(a.split("=", 1) for a in arguments if a.startswith(("count=", "write=")))
    rest = [a for a in arguments if not a.startswith(("count=", "write="))]
    if not any(a.startswith("model=") for a in rest):
        rest.append("model=far_tiny_dsa")
    run, model, method = composed(["method=dsa", "method.stop=0", "method.stride=1", *rest])
    assert isinstance(method, DSA)
    method.check(model)
    model.load()
    prompts = prompts_of(run, int(own["count"]))
    texts, found = model.texts(prompts), []
    for seed, prompt in enumerate(watched(prompts, "watching")):
        found.append(watch(model, method, model.conditioning(prompt, texts), seed))
    steps = model.settings.steps
    row = {"steps": steps, "videos": len(prompts), **told(np.concatenate(found))}
    if own["write"] == "true":
        path = Path(CONF.parent, model.settings.checkpoint, "calibration.json")
        rows = json.loads(path.read_text()) if path.is_file() else []
        with writing(path) as draft:
            draft.write_text(json.dumps([r for r in rows if r["steps"] != steps] + [row], indent=1))
    print(json.dumps(row))


if __name__ == "__main__":
    tolerate()
    main(sys.argv[1:])
