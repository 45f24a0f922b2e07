"""How many correct videos the validity check refuses; the aim is 0 of 200.

    python -m benchmarks.clean_videos [model=skyreels_tiny] [count=200] [out=results/clean_videos] [settings ...]

Generates `count` Originals of a tiny preset, from its held-out prompts with one seed or more. Each is judged as in the
evaluation: alone, and compared with itself as the Original. Videos are short (`SHORT`) unless model.frames is given.
Each verdict is written as a line of OUT/<model>-<settings>.jsonl at once, so the same command continues an interrupted
run. The frames of refused videos are stored in the same place. The last line is one JSON object.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import composed, prompts_of, video, watched
from engine.method import Original
from eval import divergence, validity
from eval.beside import Beside
from eval.signals import Signals, signals
from eval.video import write_lossless
from terminal import tolerate

SHORT = {"skyreels_tiny": 57, "magi1_tiny": 48}  # frames; more: closer to the preset's own length, slower


def judged(frames: np.ndarray, fps: float) -> dict[str, list[str]]:
    """The check's reasons and warnings for a video, alone and compared with itself."""
    seen: Signals = signals([frames])
    expected = validity.Expected(*frames.shape[:3])
    beside = Beside()
    beside.update(frames, frames)
    left = validity.Verdict(
        divergence.diverged(beside.measures(), None, 0.0, fps)
    )  # compared with itself: must be empty
    verdicts = [left, *(validity.judge(seen, original, expected, fps) for original in (None, seen))]
    return {
        kind: sorted({text for verdict in verdicts for text in getattr(verdict, kind)})
        for kind in ("reasons", "warnings")
    }


def known(path: Path) -> list[dict[str, Any]]:
    """The verdicts of an earlier run, without an incomplete last line."""
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def measure(model: Any, prompts: Sequence[str], count: int, path: Path) -> list[dict[str, Any]]:
    """`count` verdicts. Those in `path` are read; the others are generated and appended to it."""
    found = known(path)[:count]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in found), encoding="utf-8")
    if len(found) < count:
        model.load()
        texts = model.texts(prompts)
    for number in watched(range(len(found), count), model.name):
        prompt, seed = prompts[number % len(prompts)], number // len(prompts)
        begin = time.perf_counter()
        frames, _ = video(model, Original(), model.conditioning(prompt, texts), seed)
        line = {
            "prompt": prompt,
            "seed": seed,
            **judged(frames, model.settings.fps),
            "seconds": round(time.perf_counter() - begin, 2),
        }
        if line["reasons"]:
            write_lossless(path.with_suffix("") / f"{number:04d}.mp4", frames, model.settings.fps)
        with path.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(line) + "\n")
        found.append(line)
    return found


def main(arguments: Sequence[str]) -> int:
    """The command line. Returns 1 if a correct video was refused, else 0."""
    own = {"count": "200", "out": "results/clean_videos", "model": "skyreels_tiny"}
    given = dict(argument.split("=", 1) for argument in arguments)
    rest = [f"{name}={value}" for name, value in given.items() if name not in own]
    own |= {name: value for name, value in given.items() if name in own}
    if "model.frames" not in given and own["model"] in SHORT:
        rest.append(f"model.frames={SHORT[own['model']]}")
    run, model, _ = composed(["method=original", f"model={own['model']}", *rest])
    said = json.dumps([sorted(rest), model.weights_id])
    path = Path(own["out"], f"{model.name}-{hashlib.sha256(said.encode()).hexdigest()[:8]}.jsonl")
    found = measure(model, prompts_of(run, int(own["count"])), int(own["count"]), path)
    refused = [line for line in found if line["reasons"]]
    for line in refused:
        print(f"refused: {line['prompt']}, seed {line['seed']}: {'; '.join(line['reasons'])}")
    print(
        f"{len(refused)} of {len(found)} videos of {model.name} refused, "
        f"{sum(bool(line['warnings']) for line in found)} with a warning; {path}"
    )
    print(
        json.dumps(
            {
                "model": model.name,
                "settings": rest,
                "weights": model.weights_id,
                "videos": len(found),
                "refused": len(refused),
                "seconds_a_video": float(np.mean([line["seconds"] for line in found])),
            }
        )
    )
    return int(bool(refused))


if __name__ == "__main__":
    tolerate()
    sys.exit(main(sys.argv[1:]))
