"""The model card of `far_tiny_dsa`, written from the checkpoint of its training and from what was measured since."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from models.train_card import adherence_text, parameters, processor, stage_rows, stages_of, write_curves

CARD = """---
license: apache-2.0
library_name: diffusers
pipeline_tag: text-to-video
---
# {name}

`far_tiny`, trained on together with a confidence head as DSA (arXiv:2606.04432) describes it: `method=dsa` decides by
the head how many steps a chunk gets. Prompts, size and sampling are those of `far_tiny` (its card is beside this one).
The folder is a whole model in diffusers' format; `head.safetensors` is the head and names the weights that it belongs
to.

Only DSA's abstract is public. It says that a lightweight head is trained jointly with a few-step generator under a
distribution-matching objective and estimates per frame how reliable the denoising is. Ours are: the any-step objective
in place of distribution matching, what the head sees, its target, and the policy (`models/train_far_confidence.py`,
`baselines/dsa.py`).

* **Head**: {features} features of a frame (mean and standard deviation of the last hidden states over its tokens, and
  the noise levels before and after the pass), {hidden} hidden units, {head_k:.1f} thousand parameters.
* **Target**: log10 of mean|x - z0| / mean|z0| per frame, where x is where the generator ends if its next pass is the
  last one, and z0 is where all steps end.
* **Numbers of steps**: {steps}. `method=dsa` refuses others.

## Training

| | steps | batch | hours | last loss |
|---|---|---|---|---|
{stages}

* **Start**: `far_tiny`, all parts. The frozen start model makes the paths, in {path_steps} steps; a path serves {reuse}
  updates. {videos} videos of {longest} frames, the training combinations of `far_tiny`.
* **Loss**: the any-step loss of `far_tiny` plus {weight:g} times the head's squared error. The head's learning rate is
  {head_faster:g} times the generator's {lr:g}. AdamW, average of the weights over about {memory:.0f} steps.
* **Hardware**: {threads} thread(s) of {machine}, shared with other work; PyTorch {torch}. Seed {seed}.{notes}
* **To train it again**: `python -m models.train_far_dsa`. Losses: `losses.csv`, `losses.png`.

## Measured: the head

{calibration}

## Measured: the generator

{adherence}

## Licence

Apache-2.0, like the project. No data or weights of others were used.
"""
UNKNOWN = "Not measured yet: `python -m benchmarks.check_dsa_head write=true` does it and writes `calibration.json`."
TOLD = """On videos of held-out prompts that the model makes itself, with all steps, by `benchmarks/check_dsa_head.py`.
Every pass but the last two of a chunk is judged. *Within a step* is the mean correlation among passes of the same step,
which no fixed schedule can know. R² is of log10 of the error; the last column is that of the mean error of the step.
"""


def calibration_text(path: Path) -> str:
    """The tables of `calibration.json`, or a sentence that says how to measure it."""
    if not path.exists():
        return UNKNOWN
    rows: list[dict[str, Any]] = sorted(json.loads(path.read_text()), key=lambda row: row["steps"])
    lines = [TOLD, "| steps | videos | passes × frames | correlation | within a step | R² | R² of the step alone |"]
    lines += ["|" + "---|" * 7]
    for row in rows:
        inside = list(row["correlation_within_step"].values())
        lines.append(
            f"| {row['steps']} | {row['videos']} | {row['passes']} | {row['correlation']:.2f} | "
            f"{sum(inside) / len(inside):.2f} | {row['r_squared']:.2f} | {row['r_squared_of_the_step_alone']:.2f} |"
        )
    lines += [
        "",
        "Fifths of the passes by what the head expected, expected error / measured error (geometric means):",
        "",
    ]
    for row in rows:
        bins = ", ".join(f"{part['expected']:.3f} / {part['measured']:.3f}" for part in row["bins"])
        lines.append(f"* {row['steps']} steps: {bins}")
    return "\n".join(lines)


def write_card(config: DictConfig, work: Path, out: Path, features: int, steps: list[int]) -> None:
    """Write README.md, losses.csv and losses.png into the model folder `out` from the checkpoint in `work`."""
    stages = stages_of(["joint"], work)
    write_curves(stages, out)
    joint = config.joint
    card = CARD.format(
        name=out.name,
        features=features,
        hidden=config.hidden,
        head_k=1e3 * parameters(out / "head.safetensors"),
        steps=", ".join(map(str, steps)),
        stages=stage_rows(stages, {"joint": f"{config.source.batch} windows (x2, x4 where short)"}),
        path_steps=joint.path_steps,
        reuse=joint.reuse,
        videos=config.latents.videos,
        longest=config.latents.frames,
        weight=joint.weight,
        head_faster=joint.head_faster,
        lr=joint.lr,
        memory=1 / (1 - joint.decay),
        threads=config.threads,
        machine=processor(),
        torch=torch.__version__.split("+")[0],
        seed=config.seed,
        notes=config.notes and f" {config.notes}",
        calibration=calibration_text(out / "calibration.json"),
        adherence=adherence_text(out / "adherence.json"),
    )
    (out / "README.md").write_text(card)
