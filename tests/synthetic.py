"""A small store of made-up records with real videos, for the tests of the reports."""

import itertools
import json
from functools import cache
from pathlib import Path

import av
import numpy as np

from store import Store, fingerprint

PROMPTS = ["a red circle moves right", "a <script>alert(1)</script> \"square\" & 'co'", "ein grünes Dreieck 🎈 / fällt"]
CELLS = {  # method, speed: (seconds, share of FLOPs, error on the scale of [0, 1])
    ("original", None): (2.00, 1.0, 0.0),
    ("original_repeat", None): (2.05, 1.0, 0.004),
    ("teacache", "slow"): (1.20, 0.58, 0.05),
    ("teacache", "fast"): (0.90, 0.42, 0.09),
    ("uniform", None): (1.02, 0.50, 0.07),
    ("scope", "slow"): (0.80, 0.36, 0.02),
    ("scope", "fast"): (0.60, 0.28, 0.035),
}
FRAMES, SIZE, FPS, SLOTS, UNIT, STEPS, LAG = 33, 64, 8, 9, 3, 10, 4

SIX = [f"{prompt}, {n}" for n in (1, 2) for prompt in PROMPTS]  # enough for an interval
PAPER = {  # the settings of the paper's runs
    "skyreels": {
        "frames": 257,
        "height": 544,
        "width": 960,
        "guidance": 6.0,
        "steps": 50,
        "ar_step": 5,
        "block": 5,
        "base_frames": 97,
        "overlap": 17,
        "attention": "full",
    },
    "magi1": {"frames": 240, "height": 480, "width": 480, "steps": 64, "distill": True, "kv_range": []},
}


def produced_by(model: str, method: dict | None = None, **changed) -> dict:
    """The values of run.json for the paper's setting; `changed` replaces settings of the model."""
    return {"model": PAPER[model] | changed, "method": method or {}}


@cache
def frames_of(prompt: int, error: float, seed: int = 0) -> np.ndarray:
    """A shape that moves over a grey ground, with noise that grows over the video: uint8 (T, H, W, 3)."""
    y, x = np.mgrid[:SIZE, :SIZE]
    colour = np.array([(220, 60, 50), (60, 110, 220), (40, 170, 90)][prompt % 3])
    video = np.full((FRAMES, SIZE, SIZE, 3), 225, float)
    for t in range(FRAMES):
        inside = np.hypot(x - 8 - 1.4 * t, y - 32 + 3 * np.sin(t / 4)) < 9
        video[t][inside] = colour
    noise = np.random.default_rng(prompt + 10 * seed).normal(0, 1, video.shape)
    return np.clip(video + 255 * error * noise * np.linspace(0.4, 1.6, FRAMES)[:, None, None, None], 0, 255).astype(
        np.uint8
    )


def encode(path: Path, frames: np.ndarray) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = SIZE, SIZE, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def ledger(share: float) -> list[dict]:
    """A staircase of three units, recomputing about `share` of the iterations."""
    modes, lines, debt = ["cache", "predict"], [], 0.0
    for iteration in range(STEPS + LAG * (SLOTS // UNIT - 1)):
        debt += share
        mode = "recompute" if debt >= 1 or iteration == 0 or share == 1 else modes[iteration % 2]
        debt -= mode == "recompute"
        for unit in range(SLOTS // UNIT):
            step = iteration - LAG * unit
            if 0 <= step < STEPS:
                slots = [UNIT * unit, UNIT * unit + UNIT]
                lines.append(
                    {
                        "iteration": iteration,
                        "segment": 0,
                        "unit": unit,
                        "slots": slots,
                        "active": slots,
                        "branch": "",
                        "sigma": 1 - step / STEPS,
                        "step": step,
                        "mode": mode,
                        "score": round(debt, 3),
                        "why": "",
                        "sites": [],
                    }
                )
    return lines


def quality_of(frames: np.ndarray, reference: np.ndarray, key: str) -> dict:
    error = ((frames / 255.0 - reference / 255.0) ** 2).mean((1, 2, 3))
    identical = bool((error == 0).all())
    per_frame = {
        "psnr": [None if e == 0 else float(-10 * np.log10(e)) for e in error],
        "ssim": (1 - 8 * error).tolist(),
        "lpips": (4 * error).tolist(),
    }
    return {
        "psnr": None if identical else float(-10 * np.log10(error.mean())),
        "ssim": float(1 - 8 * error.mean()),
        "lpips": float(4 * error.mean()),
        "identical": identical,
        "per_frame": per_frame,
        "reference": key,
        "validity": {"status": "ok", "reasons": []},
        "metric_versions": {"psnr": "pooled", "lpips": "alex 0.1"},
        "adherence": {"colour": True, "shape": True, "direction": True},
    }


def make_store(
    root: Path,
    model: str = "skyreels_tiny",
    prompts=PROMPTS,
    cells=CELLS,
    flops: float = 3e12,
    videos: bool = True,
    **run,
) -> Store:
    """Records of every cell for every prompt; `run` overrides what run.json says."""
    store = Store(root)
    changed = run.get("changed", {})
    own = {name: value for name, value in changed.items() if name.startswith("model.")}  # of an Original
    keys = {n: fingerprint({"model": model, "prompt": p, **own}) for n, p in enumerate(prompts)}
    for ((method, speed), (seconds, share, error)), (n, prompt) in itertools.product(cells.items(), enumerate(prompts)):
        key = (
            keys[n]
            if method == "original"
            else fingerprint({"model": model, "cell": f"{method}{speed}", "n": n, **changed})
        )
        frames, reference = frames_of(n % 3, error, seed=hash_of(method, speed)), frames_of(n % 3, 0.0)
        slower = 1 + 0.03 * n
        with store.stage(model, method, speed, key) as stage:
            encode(stage.path / "video.mp4", frames) if videos else (stage.path / "video.mp4").touch()
            (stage.path / "frames.mp4").write_bytes((stage.path / "video.mp4").read_bytes())
            lines = ledger(share)
            (stage.path / "trace.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
            settings = {
                "model": {"name": model, "frames": FRAMES},
                "method": {"name": method, "tau_cache": 0.3, "max_skip": 5, "selective": "prefix"},
                "seed": 0,
            }
            for name, value in changed.items():
                group, _, setting = name.partition(".")
                settings[group][setting] = value
            (stage.path / "config.yaml").write_text(json.dumps(settings))  # JSON is YAML
            stage.run |= {
                "status": "ok",
                "prompt": prompt,
                "prompt_id": n,
                "seed": 0,
                "reference_key": keys[n],
                "fps": FPS,
                "frames": FRAMES,
                "weights": "trained",
                "estimated": method == "scope",
                "forwards": 2 * len(lines),
                "iterations": STEPS + 2 * LAG,
                "segments": [STEPS + 2 * LAG],
                "seconds": {
                    "denoise": seconds * slower,
                    "decode": 0.2,
                    "text": 0.01,
                    "total": seconds * slower + 0.21,
                    "warmup": 0.5,
                },
                "peak_memory": {"allocated": int(1e9 * (1 + 0.1 / share)), "reserved": int(1.3e9)},
                "flops": {"dense": flops * share, "masked": flops * share * 0.7, "executed_fraction": share},
                "decisions": {"cache": 1, "predict": 1, "recompute": 2},
                "environment": {"python": "3.11", "torch": "2", "device": "cpu", "command": "python run.py"},
            } | run
        stage.record.write_json("quality.json", quality_of(frames, reference, keys[n]))
    return store


def hash_of(method: str, speed: str | None) -> int:
    return sum(map(ord, f"{method}{speed}"))
