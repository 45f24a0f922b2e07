"""How often a tiny model draws what its prompt asks for.

    python -m benchmarks.adherence [model=skyreels_tiny] [count=64] [write=true] [settings of the model ...]

Generates the first `count` held-out prompts with the Original, lets eval/adherence.py read the frames and
eval/validity.py judge them, and prints the shares of videos whose colour, shape and direction are right. With
`write=true` the row is added to `adherence.json` beside the model's weights, from which its card is written. The last
line is one JSON object.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.progress import track

from benchmarks.common import composed, prompts_of, video
from conf.schema import CONF
from engine.method import Original
from eval import validity
from eval.adherence import adherence
from eval.signals import signals
from store import writing
from terminal import tolerate


def measure(arguments: Sequence[str], count: int) -> dict:
    """The shares over `count` videos, and every invalid video's reasons."""
    run, model, _ = composed(["method=original", *arguments])
    model.load()
    prompts = prompts_of(run, count)
    texts = model.texts(prompts)
    answers, invalid = [], []
    for seed, prompt in enumerate(track(prompts, f"{model.name}")):
        frames, _ = video(model, Original(), model.conditioning(prompt, texts), seed)
        answer = adherence(frames, prompt)
        if answer is None:
            raise ValueError(f"the checker does not understand {prompt!r}")
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
