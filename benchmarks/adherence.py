"""The share of a tiny model's videos that show what the prompt says.

    python -m benchmarks.adherence [model=skyreels_tiny] [count=64] [write=true] [settings of the model ...]

Generates videos of the first `count` held-out prompts with the Original. eval/adherence.py reads colour, shape and
direction from the frames, and eval/validity.py checks the videos. Prints the shares of videos in which each is right.
With `write=true` the result is added to `adherence.json` in the folder of the model's weights; the model card is
written from it. The last line is one JSON object.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.common import composed, prompts_of, video, watched
from conf.schema import CONF
from engine.method import Original
from eval import validity
from eval.adherence import adherence
from eval.signals import signals
from store import writing
from terminal import tolerate


def measure(arguments: Sequence[str], count: int) -> dict:
    """The shares over `count` videos, and the reasons for every invalid video."""
    run, model, _ = composed(["method=original", *arguments])
    model.load()
    prompts = prompts_of(run, count)
    texts = model.texts(prompts)
    answers, invalid = [], []
    for seed, prompt in enumerate(watched(prompts, f"{model.name}")):
        frames, _ = video(model, Original(), model.conditioning(prompt, texts), seed)
        answer = adherence(frames, prompt)
        if answer is None:
            raise ValueError(f"eval.adherence cannot read the prompt {prompt!r}; want one of models.shapes.prompts")
        answers.append(answer)
        verdict = validity.judge(signals([frames]), None, validity.Expected(*frames.shape[:3]), model.settings.fps)
        invalid += [f"{prompt}: {reason}" for reason in verdict.reasons]
    length = model.settings.frames
    return {
        "setting": ", ".join([f"{length} frames", *arguments]),
        "videos": len(answers),
        **{key: float(np.mean([getattr(a, key) for a in answers])) for key in ("colour", "shape", "direction")},
        "present": float(np.mean([a.frames_present for a in answers])) / length,
        "jumps": float(np.mean([a.jumps for a in answers])),
        "invalid": invalid,
    }


def main(arguments: Sequence[str]) -> None:
    own = {"count": "64", "write": "false"}
    own |= dict(a.split("=", 1) for a in arguments if a.startswith(("count=", "write=")))
    rest = [a for a in arguments if not a.startswith(("count=", "write="))]
    row = measure(rest, int(own["count"]))
    if own["write"] == "true":
        _, model, _ = composed(["method=original", *rest])
        path = Path(CONF.parent, model.settings.checkpoint, "adherence.json")
        rows = json.loads(path.read_text()) if path.is_file() else []
        with writing(path) as draft:
            draft.write_text(json.dumps([r for r in rows if r["setting"] != row["setting"]] + [row], indent=1))
    print(json.dumps(row))


if __name__ == "__main__":
    tolerate()
    main(sys.argv[1:])
