"""One record's scores: read its lossless frames, judge them, compare with the Original, and say how."""

import importlib.util
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from eval import curves, divergence, lpips_weights, metrics, video
from eval import measures as moves
from eval import validity as gate
from eval.beside import Beside
from eval.signals import Signals, Watch

FRAMES, PREVIEW = "frames.mp4", "video.mp4"
ADHERENCE_BYTES = 64 * 2**20  # the prompts' checker wants all frames at once; large videos are not its own
OTHER_NOISE = "original_seed"  # the floor that is another video on purpose: to call it diverged would say nothing


def score_record(
    folder: str | Path,
    reference: str | Path | None = None,
    run: Mapping[str, Any] | None = None,
    lpips_net: str = "alex",
    device: str = "cpu",
    thresholds: gate.Thresholds | None = None,
) -> dict[str, Any]:
    """The content of quality.json for the record in `folder`; writes nothing.

    Args:
        folder: holds frames.mp4, run.json and perhaps config.yaml; a record still being written will do.
        reference: the folder of the Original of the same prompt and noise; None for an Original, or where none is.
        run: the content of run.json where it is not written yet. Read: `reference_key, prompt, method, decisions,
            flops, status, reason`, what was asked for as `frames, height, width, fps`, and `frame_borders`, the first
            frame of each segment after the first, where it is known.

    An Original with a `video.mp4` also gets `preview`: how far that copy for people is from its lossless frames, which
    is the difference that an encoder alone makes.

    A video that cannot be read gives `validity.status == "invalid"` with a reason that names the file, not an error;
    the reason is also there as `unreadable`.
    Raises ValueError for frames too small to compare, or a damaged file of LPIPS weights.
    """
    folder, reference = Path(folder), Path(reference) if reference else None
    run = run if run is not None else json.loads((folder / "run.json").read_bytes())
    quality = _empty(run, lpips_net)
    try:
        seen, quality["measures"], kept = _watch(folder / FRAMES)
    except video.VideoError as error:
        reason = run.get("reason") if run.get("status") in ("invalid", "failed") else None
        unreadable = {} if reason else {"unreadable": str(error)}
        return quality | unreadable | {"validity": gate.Verdict((str(reason or error),)).to_json()}
    quality["frames"], fps = seen.frames, float(run.get("fps") or 24)
    quality["adherence"] = _adherence(kept, run.get("prompt"))
    original, verdict = None, gate.Verdict()
    if wants_preview(folder, run):
        quality["preview"] = _preview(folder, lpips_net, device)
    if reference:
        try:
            original = _reference_signals(reference / FRAMES, (reference / FRAMES).stat().st_mtime_ns)
            beside = Beside()
            similarity = metrics.compare(
                reference / FRAMES, folder / FRAMES, lpips_net, device=device, look=beside.update
            )
            quality |= similarity.to_json() | _along_time(similarity, run.get("frame_borders"))
            quality["beside"] = beside.measures()
            if run.get("method") != OTHER_NOISE:
                verdict = gate.Verdict(
                    diverged=divergence.diverged(quality["beside"], similarity.psnr, similarity.lpips, fps)
                )
        except (OSError, video.VideoError, metrics.MismatchError) as error:
            quality["reference_missing"] = str(error)
    expected = gate.Expected(
        *(run.get(name) or (getattr(original, name) if original else None) for name in ("frames", "height", "width"))
    )
    verdicts = [_recorded(run), gate.judge_decisions(run, _max_skip(folder), bool(quality["identical"]), thresholds)]
    if run.get("weights") != "random":  # untrained weights draw noise, which says nothing of what it cost
        verdicts[1:1] = [gate.judge(seen, original, expected, fps, thresholds), verdict]
    quality["validity"] = gate.Verdict(
        *(
            tuple(dict.fromkeys(text for v in verdicts for text in getattr(v, kind)))
            for kind in ("reasons", "warnings", "diverged")
        )
    ).to_json()
    return quality


def wants_preview(folder: Path, run: Mapping[str, Any]) -> bool:
    """Whether this is an Original, once, with a copy for people beside its lossless frames."""
    return run.get("method") == "original" and not run.get("reference_key") and (folder / PREVIEW).is_file()


def _preview(folder: Path, lpips_net: str, device: str) -> dict[str, Any]:
    """The similarity of an Original's mp4 with its own frames, or why there is none."""
    try:
        similarity = metrics.compare(folder / FRAMES, folder / PREVIEW, lpips_net, device=device)
    except (video.VideoError, metrics.MismatchError) as error:  # odd sizes gain a row or column in the preview
        return {"missing": str(error)}
    return {name: getattr(similarity, name) for name in ("psnr", "ssim", "lpips")}


def versions(lpips_net: str) -> dict[str, str]:
    """How each number was measured, for the foot of every table."""
    backbone = "not measured"
    try:
        if lpips_net != "none":
            convolutions = _fingerprint(lpips_weights.find(lpips_net), lpips_net)
            backbone = f"{lpips_net}, heads v0.1, convolutions sha256 {convolutions}"
    except lpips_weights.MissingWeights:
        backbone = "not measured: weights missing"
    return {
        "frames": "lossless RGB",
        "psnr": "pooled over the video, exact on bytes",
        "ssim": "Gaussian 11×11, sigma 1.5, reflected border, RGB, data range 1",
        "lpips": backbone,
        "validity": gate.VERSION,
        "measures": moves.VERSION,
        "torch": torch.__version__,
    }


def _empty(run: Mapping[str, Any], lpips_net: str) -> dict[str, Any]:
    return {
        "psnr": None,
        "psnr_frame_mean": None,
        "ssim": None,
        "lpips": None,
        "identical": None,
        "per_frame": None,
        "reference": run.get("reference_key"),
        "adherence": None,
        "measures": None,
        "beside": None,
        "metric_versions": versions(lpips_net),
    }


def _watch(path: Path) -> tuple[Signals, dict[str, float | None], list[np.ndarray]]:
    """Signals and measures from one reading, and the frames themselves if they are few and small."""
    watch = Watch()
    kept: list[np.ndarray] = []

    def passing(batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for batch in batches:
            watch.update(batch)
            if small:
                kept.append(batch)
            yield batch

    info = video.probe(path)
    small = info.frames * info.height * info.width * 3 <= ADHERENCE_BYTES
    measured = moves.measures(passing(video.read(path)))
    return watch.signals(), measured, kept


@lru_cache(maxsize=64)
def _reference_signals(path: Path, modified: int) -> Signals:
    """An Original is read once for all the videos that stand beside it; `modified` tells a rewritten file."""
    return _watch(path)[0]


@lru_cache(maxsize=2)
def _fingerprint(path: Path, net: str) -> str:
    return lpips_weights.fingerprint(lpips_weights.features(path, net))


def _adherence(batches: list[np.ndarray], prompt: str | None) -> Any:
    """What the checker of the tiny presets' prompts says; None for other prompts, and without the checker."""
    if not batches or not prompt or importlib.util.find_spec("eval.adherence") is None:
        return None
    answer = importlib.import_module("eval.adherence").adherence(np.concatenate(batches), prompt)
    return asdict(answer) if is_dataclass(answer) and not isinstance(answer, type) else answer


def _along_time(similarity: metrics.Similarity, borders: list[int] | None) -> dict[str, Any]:
    """Drift of each metric over the video and, where the segments are known, its mean in each and jump between."""
    known = {name: curve for name, curve in similarity.per_frame.items() if curve}
    found: dict[str, Any] = {"drift": {name: curves.drift(curve) for name, curve in known.items()}}
    if borders:
        found["by_segment"] = {name: curves.by_chunk(curve, borders) for name, curve in known.items()}
        found["border_jumps"] = {name: curves.border_jumps(curve, borders) for name, curve in known.items()}
    return found


def _recorded(run: Mapping[str, Any]) -> gate.Verdict:
    """What the run itself found, such as latents that were not finite."""
    if run.get("status") == "invalid" and run.get("reason"):
        return gate.Verdict(tuple(str(run["reason"]).split("; ")))
    return gate.Verdict()


def _max_skip(folder: Path) -> int | None:
    path = folder / "config.yaml"
    config = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}) if path.exists() else {}
    method = config.get("method")
    bound = method.get("max_skip") if isinstance(method, dict) else None
    return bound if isinstance(bound, int) and bound > 0 else None
