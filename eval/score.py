"""Computes the scores of one record from its lossless frames and those of its Original."""

import importlib.util
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from eval.alone import Colours, alone
from eval.beside import Beside
from eval.kept import PREVIEW, wants_preview
from eval.signals import Signals, Watch

FRAMES = "frames.mp4"
ADHERENCE_BYTES = 64 * 2**20  # larger videos are not checked, because the prompt checker needs all frames at once
OTHER_NOISE = "original_seed"  # another video on purpose, so it is never called diverged


def score_record(
    folder: str | Path,
    reference: str | Path | None = None,
    run: Mapping[str, Any] | None = None,
    lpips_net: str = "alex",
    device: str = "cpu",
    thresholds: gate.Thresholds | None = None,
) -> dict[str, Any]:
    """The content of quality.json for the record in `folder`. Writes nothing.

    Args:
        folder: has frames.mp4, run.json and optionally config.yaml. The record may be incomplete.
        reference: the folder of the Original of the same prompt and noise; None for an Original, or if there is none.
        run: the content of run.json if it is not written yet. Used: `reference_key, prompt, method, decisions, flops,
            status, reason`, the requested `frames, height, width, fps`, and, if known, `chunks`, and `frame_borders`:
            the first frame of each segment but the first.

    An Original with a `video.mp4` also gets `preview`: the similarity of this lossy copy to the lossless frames, which
    shows the effect of the encoder alone.

    A video that cannot be read is invalid, with the reason also as `unreadable`; no error. Raises ValueError for frames
    that are too small to compare, or for a damaged file of LPIPS weights.
    """
    folder, reference = Path(folder), Path(reference) if reference else None
    run = run if run is not None else json.loads((folder / "run.json").read_bytes())
    quality = _empty(run, lpips_net)
    try:
        seen, quality["measures"], kept, colours = _watch(folder / FRAMES)
    except video.VideoError as error:
        return quality | _unreadable(run, error)
    quality |= {"frames": seen.frames, "adherence": _adherence(kept, run.get("prompt"))}
    quality["alone"] = alone(seen, colours, _chunks(run))
    if wants_preview(folder, run):
        quality["preview"] = _preview(folder, lpips_net, device)
    original, beside = _compare(folder, reference, run, quality, lpips_net, device) if reference else (None, None)
    verdicts = [_recorded(run), gate.judge_decisions(run, _max_skip(folder), bool(quality["identical"]), thresholds)]
    if run.get("weights") != "random":  # with random weights the frames are noise, and quality has no meaning
        of_frames = gate.judge(seen, original, _expected(run, original), _fps(run), thresholds)
        verdicts[1:1] = [of_frames, beside or gate.Verdict()]
    return quality | {"validity": _joined(verdicts).to_json()}


def _unreadable(run: Mapping[str, Any], error: video.VideoError) -> dict[str, Any]:
    """The verdict on a video that cannot be read; the reason that the run recorded comes first."""
    reason = run.get("reason") if run.get("status") in ("invalid", "failed") else None
    unreadable = {} if reason else {"unreadable": str(error)}
    return unreadable | {"validity": gate.Verdict((str(reason or error),)).to_json()}


def _compare(
    folder: Path, reference: Path, run: Mapping[str, Any], quality: dict[str, Any], lpips_net: str, device: str
) -> tuple[Signals | None, gate.Verdict | None]:
    """Add the comparison with the Original to `quality`. Returns the Original's signals and the verdict on divergence;
    None where the Original cannot be compared."""
    original = None
    try:
        original = _reference_signals(reference / FRAMES, (reference / FRAMES).stat().st_mtime_ns)
        beside = Beside()
        similarity = metrics.compare(reference / FRAMES, folder / FRAMES, lpips_net, device=device, look=beside.update)
    except (OSError, video.VideoError, metrics.MismatchError) as error:
        quality["reference_missing"] = str(error)
        return original, None
    quality |= similarity.to_json() | _along_time(similarity, run.get("frame_borders"))
    quality["beside"] = beside.measures()
    if run.get("method") == OTHER_NOISE:
        return original, None
    found = divergence.diverged(quality["beside"], similarity.psnr, similarity.lpips, _fps(run))
    return original, gate.Verdict(diverged=found)


def _chunks(run: Mapping[str, Any]) -> list[int] | None:
    """The frames that the video has after each of its chunks, if they were stamped."""
    return (run.get("chunks") or {}).get("frames")


def _fps(run: Mapping[str, Any]) -> float:
    return float(run.get("fps") or 24)


def _expected(run: Mapping[str, Any], original: Signals | None) -> gate.Expected:
    """The requested frames, height and width; those of the Original where run.json does not name them."""
    names = ("frames", "height", "width")
    return gate.Expected(*(run.get(name) or (getattr(original, name) if original else None) for name in names))


def _joined(verdicts: Sequence[gate.Verdict]) -> gate.Verdict:
    """One verdict with the texts of all, each once."""
    kinds = ("reasons", "warnings", "diverged")
    return gate.Verdict(*(tuple(dict.fromkeys(text for v in verdicts for text in getattr(v, kind))) for kind in kinds))


def _preview(folder: Path, lpips_net: str, device: str) -> dict[str, Any]:
    """The similarity of an Original's lossy copy to its own frames, or why there is none."""
    try:
        similarity = metrics.compare(folder / FRAMES, folder / PREVIEW, lpips_net, device=device)
    except (video.VideoError, metrics.MismatchError) as error:  # odd sizes get one more pixel in the lossy copy
        return {"missing": str(error)}
    return {name: getattr(similarity, name) for name in ("psnr", "ssim", "lpips")}


def versions(lpips_net: str) -> dict[str, str]:
    """How each number was measured, for the notes under tables."""
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
        "alone": None,
        "beside": None,
        "metric_versions": versions(lpips_net),
    }


def _watch(path: Path) -> tuple[Signals, dict[str, float | None], list[np.ndarray], Colours]:
    """Signals, measures and colours from one pass over the file; also the frames themselves, if they are small
    enough."""
    watch, colours = Watch(), Colours()
    kept: list[np.ndarray] = []

    def passing(batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for batch in batches:
            watch.update(batch)
            colours.update(batch)
            if small:
                kept.append(batch)
            yield batch

    info = video.probe(path)
    small = info.frames * info.height * info.width * 3 <= ADHERENCE_BYTES
    measured = moves.measures(passing(video.read(path)))
    return watch.signals(), measured, kept, colours


@lru_cache(maxsize=64)
def _reference_signals(path: Path, modified: int) -> Signals:
    """The signals of an Original. It is read once for all its videos; `modified` changes if the file is rewritten."""
    return _watch(path)[0]


@lru_cache(maxsize=2)
def _fingerprint(path: Path, net: str) -> str:
    return lpips_weights.fingerprint(lpips_weights.features(path, net))


def _adherence(batches: list[np.ndarray], prompt: str | None) -> Any:
    """The result of the prompt checker; None for prompts that it does not know."""
    if not batches or not prompt or importlib.util.find_spec("eval.adherence") is None:
        return None
    answer = importlib.import_module("eval.adherence").adherence(np.concatenate(batches), prompt)
    return asdict(answer) if is_dataclass(answer) and not isinstance(answer, type) else answer


def _along_time(similarity: metrics.Similarity, borders: list[int] | None) -> dict[str, Any]:
    """The drift of each metric. If the segments are known, also the mean per segment and the jumps at borders."""
    known = {name: curve for name, curve in similarity.per_frame.items() if curve}
    found: dict[str, Any] = {"drift": {name: curves.drift(curve) for name, curve in known.items()}}
    if borders:
        found["by_segment"] = {name: curves.by_chunk(curve, borders) for name, curve in known.items()}
        found["border_jumps"] = {name: curves.border_jumps(curve, borders) for name, curve in known.items()}
    return found


def _recorded(run: Mapping[str, Any]) -> gate.Verdict:
    """The verdict of the run itself, e.g. on latents that were not finite."""
    if run.get("status") == "invalid" and run.get("reason"):
        return gate.Verdict(tuple(str(run["reason"]).split("; ")))
    return gate.Verdict()


def _max_skip(folder: Path) -> int | None:
    path = folder / "config.yaml"
    config = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}) if path.exists() else {}
    method = config.get("method")
    bound = method.get("max_skip") if isinstance(method, dict) else None
    return bound if isinstance(bound, int) and bound > 0 else None
