"""What a report is made of: one line per record, read once from the store."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from store import Record, Store
from store.index import gc_paused

NAMES = {  # how a method is called in print, and the order of the rows
    "original": "Original",
    "original_repeat": "Original, repeated",
    "original_seed": "Original, other seed",
    "reduced_steps": "Original, fewer steps",
    "uniform": "Uniform",
    "delta_dit": "Δ-DiT",
    "teacache": "TeaCache",
    "taylorseer": "TaylorSeer",
    "flowcache": "FlowCache",
}
MODELS = ("skyreels", "magi1", "skyreels_tiny", "magi1_tiny")
SPEEDS = {"": 0, "slow": 1, "fast": 2, "paper": 3}
CONTROLS = ("original", "original_repeat", "original_seed")  # rows that accelerate nothing
MOST_ROWS = 16  # of a model in one figure; more: fuller figures, and labels that touch
CODE = ("method.class", "method.code", "model.class", "model.code")  # of produced_by: what made a video, no setting
ROW = ["model", "method", "speed", "variant"]  # what makes a row of the main table


@dataclass(frozen=True)
class Study:
    """A store as a report sees it."""

    root: Path
    videos: pd.DataFrame  # a line per record, of every status, in the order of the tables
    records: list[Record]  # videos["record"] counts into this
    damaged: dict[str, str]  # folders that do not count, and why

    @property
    def models(self) -> list[str]:
        return list(dict.fromkeys(self.videos["model"]))

    def rows(
        self, model: str | None = None, some: Callable[[pd.DataFrame], pd.DataFrame] = lambda videos: videos
    ) -> Iterator[tuple[dict[str, str], pd.DataFrame]]:
        """Each row of the main table with its videos, the Original first and SCOPE last; of `some` of the videos."""
        videos = some(self.videos if model is None else self.videos[self.videos["model"] == model])
        for names, group in videos.groupby(ROW, sort=False):
            yield dict(zip(ROW, names, strict=True)), group

    def record(self, video: pd.Series) -> Record:
        return self.records[video["record"]]

    def varied(self, model: str, method: str, speed: str = "") -> Iterator[tuple[dict[str, str], pd.DataFrame]]:
        """`rows` of one cell of the menu: the operating point itself and every departure from it."""
        for row, group in self.rows(model):
            if (row["method"], row["speed"]) == (method, speed):
                yield row, group

    def cell_file(self, folder: str, row: Mapping[str, str]) -> dict[str, Any]:
        """RESULTS/<folder>/<model>/<cell>.json, what was measured over a whole cell; empty if absent."""
        name = row["method"] + (f"-{row['speed']}" if row["speed"] else "")
        path = self.root / folder / row["model"] / f"{name}.json"
        return json.loads(path.read_text()) if path.exists() and not row["variant"] else {}


def load(results: Path) -> Study:
    """Read every complete record under `results`.

    Raises:
        StoreError: there is no such folder.
    """
    store = Store(results, create=False)
    with gc_paused():
        records = list(store.records())
        videos = pd.DataFrame([_line(record, n) for n, record in enumerate(records)], columns=_COLUMNS)
        store.remember(least=64)  # the scores that were read
        videos["variant"] = _variants(videos, records)
        _pair(videos)
    videos = videos.iloc[_order(videos)].reset_index(drop=True)
    damaged = {str(path.relative_to(store.root)): why for path, why in sorted(store.damaged.items())}
    return Study(store.root, videos, records, damaged)


def label(row: Mapping[str, Any]) -> str:
    """How a row is called in print: `SCOPE fast (tau_cache=0.1)`."""
    name = row.get("label") or NAMES.get(row["method"], row["method"])
    name = "SCOPE" if name == "scope" else name
    speed = f" {row['speed']}" if row["speed"] else ""
    return f"{name}{speed} ({row['variant']})" if row["variant"] else name + speed


def headline(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that a figure of a whole model has room for: all of a few, else the slow and fast points alone."""
    if len(rows[ROW].drop_duplicates()) <= MOST_ROWS:
        return rows
    return rows[(rows["variant"] == "") & rows["speed"].isin(list(SPEEDS))]


def settings(record: Record) -> dict[str, Any]:
    """What produced a video: `produced_by` of its run.json, or its config.yaml where an older version wrote it."""
    return record.run.get("produced_by") or record.config


def executed(run: Mapping[str, Any]) -> float:
    """FLOPs of the attention that ran: masked where that was block-causal; dense where a record does not say."""
    flops = run.get("flops") or {}
    return number(flops.get("masked" if run.get("attention") == "block_causal" else "dense"))


def number(value: Any) -> float:
    """A float, NaN for what is absent or no number.

    >>> number("3.5"), number(None)
    (3.5, nan)
    """
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


_NUMBERS = (
    "time_s",
    "denoise_s",
    "decode_s",
    "text_s",
    "flops",
    "flops_masked",
    "memory",
    "memory_reserved",
    "memory_denoise",
    "forwards",
    "iterations",
    "frames",
    "fps",
    "psnr",
    "ssim",
    "lpips",
)
_COLUMNS = [
    "record",
    "key",
    "model",
    "method",
    "speed",
    "variant",
    "label",
    "prompt_id",
    "prompt",
    "seed",
    "status",
    "reason",
    "reference",
    "weights",
    "attention",
    "estimated",
    "of_paper",
    "turned",
    "identical",
    "scored",
    "device",
    "changed",
    "diverged",
    *_NUMBERS,
]


def _seconds(seconds: Mapping[str, Any]) -> float:
    """Denoising and decoding. Text is apart: only the first cell with a prompt encodes it. Older totals include it."""
    parts = number(seconds.get("denoise")) + number(seconds.get("decode"))
    return number(seconds.get("total")) if math.isnan(parts) else parts


def _line(record: Record, n: int) -> dict[str, Any]:
    run, quality = record.run, record.scores or {}
    model, cell = record.path.parts[-3:-1]
    speed = run.get("speed") if run.get("speed") not in (None, "none") else ""
    seconds, memory, flops = (run.get(k) or {} for k in ("seconds", "peak_memory", "flops"))
    environment = run.get("environment") or {}
    status = record.status
    validity = quality.get("validity") or {}
    if status == "ok" and validity.get("status") == "invalid":
        status = "invalid"
    identical = bool(quality.get("identical"))
    return {
        "record": n,
        "key": record.path.name,
        "model": run.get("model", model),
        "method": run.get("method", cell),
        "speed": speed,
        "label": run.get("method_label") or "",
        "prompt_id": run.get("prompt_id", record.path.name),
        "prompt": str(run.get("prompt", "")),
        "seed": run.get("seed", 0),
        "status": status,
        "diverged": status == "ok" and validity.get("status") == "diverged",  # a video, which has left its Original
        "reason": run.get("reason") or "; ".join(map(str, validity.get("reasons") or ())),
        "reference": run.get("reference_key") or quality.get("reference") or "",
        "weights": run.get("weights") or "",
        "estimated": bool(run.get("estimated")),
        "of_paper": bool((run.get("point") or {}).get("paper")),
        "turned": ", ".join((run.get("point") or {}).get("turned") or ()),
        "identical": identical,
        "scored": bool(quality),
        "device": str(environment.get("gpu") or environment.get("cpu") or ""),
        "changed": dict(run.get("changed") or {}),
        "memory_denoise": number((run.get("peak_memory_denoise") or {}).get("allocated")),
        "time_s": _seconds(seconds),
        "denoise_s": number(seconds.get("denoise")),
        "decode_s": number(seconds.get("decode")),
        "text_s": number(seconds.get("text")),
        "flops": executed(run),
        "attention": run.get("attention") or "",
        "flops_masked": number(flops.get("masked")),
        "memory": number(memory.get("allocated")),
        "memory_reserved": number(memory.get("reserved")),
        "psnr": np.inf if identical else number(quality.get("psnr")),
        **{name: number(quality.get(name)) for name in ("ssim", "lpips")},
        **{name: number(run.get(name)) for name in ("forwards", "iterations", "frames", "fps")},
    }


def _variants(videos: pd.DataFrame, records: list[Record]) -> pd.Series:
    """What a row's settings are besides its operating point, `tau_cache=0.1`.

    A record says how it departs from the menu; where that leaves two videos of one prompt and seed in a row (older
    records, other weights), the settings that differ between them tell them apart.
    """
    told = [
        ", ".join(f"{name.partition('.')[2]}={value}" for name, value in sorted(changed.items()))
        for changed in videos["changed"]
    ]
    names = pd.Series(told, index=videos.index, dtype=object)
    for _, group in videos.groupby(["model", "method", "speed", names], sort=False):
        if not group.duplicated(["prompt", "seed"]).any():
            continue
        made_by = {n: dict(_flat(settings(records[r]))) for n, r in group["record"].items()}
        everything = sorted(set().union(*made_by.values()) - {key for c in group["changed"] for key in c})
        differ = [s for s in everything if len({str(flat.get(s)) for flat in made_by.values()}) > 1]
        older = {n for n, r in group["record"].items() if records[r].older_key}
        if older and len(older) < len(group):  # the fingerprints of code are of two kinds: they say nothing
            differ = [s for s in differ if s not in CODE]
        for n, flat in made_by.items():
            apart = [f"{s.removeprefix('method.')}={flat.get(s)}" for s in differ]
            apart = ["older key", *apart] if n in older and len(older) < len(group) else apart
            names[n] = ", ".join([*filter(None, [names[n]]), *apart])
    return names


def _flat(config: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """The settings of model and method as (dotted name, value)."""
    for name, value in config.items():
        if not path and name not in ("model", "method"):
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


def originals(videos: pd.DataFrame) -> pd.Series:
    """The key of the Original that each record names; of an Original, and of a record that names none, its own."""
    return videos["reference"].where(videos["reference"] != "", videos["key"])


def _pair(videos: pd.DataFrame) -> None:
    """Add `speedup`, `speedup_denoise` and `flops_speedup`, over the Original that the record names, or none.

    Never over another Original of the prompt: it may be of other settings, and so of another cost.
    """
    valid = videos[(videos["method"] == "original") & (videos["status"] == "ok")]
    by_key = {(v.model, v.key): v for v in valid.itertuples()}
    found = [by_key.get(pair) for pair in zip(videos["model"], originals(videos), strict=True)]
    ratios = {"speedup": "time_s", "speedup_denoise": "denoise_s", "flops_speedup": "flops"}
    for ratio, source in ratios.items():
        reference = np.array([getattr(v, source) if v else np.nan for v in found], float)
        videos[ratio] = reference / videos[source].where(videos[source] > 0).to_numpy(float)


def _order(videos: pd.DataFrame) -> list[int]:
    """Models and methods in the order of the paper's tables, the unknown after the known, SCOPE last."""
    known = list(NAMES)

    def place(video: tuple) -> tuple:
        model, method, speed, variant, prompt_id, *rest = video  # rest: prompt, seed, key
        models = (MODELS.index(model) if model in MODELS else len(MODELS), model)
        methods = (known.index(method) if method in known else len(known) + (method == "scope"), method)
        prompt = (prompt_id, "") if isinstance(prompt_id, int) else (len(videos), str(prompt_id))
        return (*models, *methods, SPEEDS.get(speed, len(SPEEDS)), speed, variant, *prompt, *map(str, rest))

    lines = videos[[*ROW, "prompt_id", "prompt", "seed", "key"]].itertuples(index=False, name=None)
    return [n for _, n in sorted((place(video), n) for n, video in enumerate(lines))]


def prompt_hash(videos: pd.DataFrame) -> str:
    """12 hex digits over the set of prompts, to see at a glance whether two tables are of one set."""
    text = "\n".join(sorted(set(videos["prompt"])))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
