"""The records of a store as a table: one line per video, with its Original and its variant."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from reports.sources import folder, joined, opened, separated
from reports.streaming import add_text
from reports.variants import variants
from reports.video import COLUMNS, line
from store import Record
from store.index import gc_paused

NAMES = {  # printed names, in the order of the tables
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
PRINTED = NAMES | {  # printed names that do not fix an order
    "adacache": "AdaCache",
    "arcache": "ARCache",
    "bwcache": "BWCache",
    "ca2vdm": "Ca2-VDM",
    "cfg_cache": "Guidance caching",
    "dicache": "DiCache",
    "dsa": "DSA",
    "dsa_proxy": "DSA-proxy",
    "easycache": "EasyCache",
    "first_block_cache": "First-block cache",
    "magcache": "MagCache",
    "meancache": "MeanCache",
    "motioncache": "MotionCache",
    "pab": "PAB",
    "predit": "PrediT",
    "scope": "SCOPE",
    "sencache": "SenCache",
    "xcache": "X-Cache",
}
MODELS = ("skyreels", "magi1", "far", "skyreels_tiny", "magi1_tiny", "far_tiny", "far_tiny_dsa")
SPEEDS = {"": 0, "slow": 1, "fast": 2, "paper": 3}
CONTROLS = ("original", "original_repeat", "original_seed")  # methods that do not accelerate
MOST_LINES = 16  # lines of a model in one figure; raising it: fuller figures, labels overlap
IDENTITY = ["model", "method", "speed", "variant"]  # identifies a line of the main table


@dataclass(frozen=True)
class Study:
    """One store, or several stores and bundles, read for a report."""

    root: Path
    videos: pd.DataFrame  # a line per record, of every status, in the order of the tables
    records: list[Record]  # videos["record"] is an index into this list
    damaged: dict[str, str]  # folders that cannot be read, and why
    files: Mapping[str, Any] = field(default_factory=dict)  # of bundles: measurements over whole cells, by path
    several: bool = False  # several stores or bundles were read

    @property
    def models(self) -> list[str]:
        return list(dict.fromkeys(self.videos["model"]))

    def lines(
        self, model: str | None = None, some: Callable[[pd.DataFrame], pd.DataFrame] = lambda videos: videos
    ) -> Iterator[tuple[dict[str, str], pd.DataFrame]]:
        """Each line of the main table with its videos, the Original first, SCOPE last; `some` selects videos."""
        videos = some(self.videos if model is None else self.videos[self.videos["model"] == model])
        for names, group in videos.groupby(IDENTITY, sort=False):
            yield dict(zip(IDENTITY, names, strict=True)), group

    def record(self, video: pd.Series) -> Record:
        return self.records[video["record"]]

    def varied(self, model: str, method: str, speed: str = "") -> Iterator[tuple[dict[str, str], pd.DataFrame]]:
        """`lines` of one method at one operating point: the point itself and every variant of it."""
        for identity, group in self.lines(model):
            if (identity["method"], identity["speed"]) == (method, speed):
                yield identity, group

    def cell_file(self, folder: str, identity: Mapping[str, str]) -> dict[str, Any]:
        """RESULTS/<folder>/<model>/<cell>.json, a measurement over a whole cell; empty if there is none."""
        name = identity["method"] + (f"-{identity['speed']}" if identity["speed"] else "")
        place = f"{folder}/{identity['model']}/{name}.json"
        path = self.root / place
        if identity["variant"]:
            return {}
        return json.loads(path.read_text()) if path.exists() else self.files.get(place, {})


def load(*places: Path, into: Path | None = None) -> Study:
    """Read every complete record of results folders and bundles. `into` is the folder of the report's files.

    Raises:
        StoreError: there is no such folder or bundle, or it is of a newer version.
    """
    with gc_paused():
        sources = [opened(place) for place in places]
        records, damaged = joined(sources)
        videos = pd.DataFrame([line(record, n) for n, record in enumerate(records)], columns=COLUMNS)
        for source in sources:
            source.remember()  # the scores that were read
        videos["variant"] = variants(videos, records)
        if len(sources) > 1:
            videos["variant"] = separated(videos)
        _pair(videos)
        add_text(videos)
    videos = videos.iloc[_order(videos)].reset_index(drop=True)
    files = {name: content for source in reversed(sources) for name, content in source.files.items()}
    return Study(into or folder(places), videos, records, damaged, files, several=len(sources) > 1)


def label(identity: Mapping[str, Any]) -> str:
    """The printed name of a line: `SCOPE fast (tau_cache=0.1)`."""
    name = identity.get("label") or PRINTED.get(identity["method"], identity["method"])
    speed = f" {identity['speed']}" if identity["speed"] else ""
    return f"{name}{speed} ({identity['variant']})" if identity["variant"] else name + speed


def headline(lines: pd.DataFrame) -> pd.DataFrame:
    """The lines that fit into one figure: all if they are few, else the operating points without their variants."""
    if len(lines[IDENTITY].drop_duplicates()) <= MOST_LINES:
        return lines
    return lines[(lines["variant"] == "") & lines["speed"].isin(list(SPEEDS))]


def originals(videos: pd.DataFrame) -> pd.Series:
    """The key of the Original that each record names; of an Original, and of a record that names none, its own."""
    return videos["reference"].where(videos["reference"] != "", videos["key"])


def used(found: pd.DataFrame, videos: pd.DataFrame) -> pd.DataFrame:
    """Originals without those of another machine that have the key of one that `videos` are compared with."""
    shared = found.duplicated(["model", "key"], keep=False)
    return found[~shared | found["record"].isin([*videos["original"], *videos["record"]])]


def _pair(videos: pd.DataFrame) -> None:
    """Add `speedup`, `speedup_denoise` and `flops_speedup`, over the Original that the record names, or none.

    Of several machines it is the Original of the same one, if there is one. Never another Original of the prompt: it
    may be of other settings, and so of another cost. `original` is its place in `Study.records`, or -1.
    """
    valid = videos[(videos["method"] == "original") & (videos["status"] == "ok")]
    by_key: dict[tuple[str, ...], Any] = {}
    for v in valid.itertuples():
        by_key.setdefault((v.model, v.key), v)
        by_key[v.model, v.key, v.device] = v  # machines may have the same keys
    names = zip(videos["model"], originals(videos), videos["device"], strict=True)
    found = [by_key.get(name) or by_key.get(name[:2]) for name in names]
    videos["original"] = [v.record if v else -1 for v in found]
    ratios = {"speedup": "time_s", "speedup_denoise": "denoise_s", "flops_speedup": "flops"}
    again = {"speedup": "again_s", "speedup_denoise": "again_denoise_s"}  # timed beside the video: sweep/time_again.py
    for ratio, source in ratios.items():
        reference = np.array([getattr(v, source) if v else np.nan for v in found], float)
        if ratio in again:
            beside = videos[again[ratio]].to_numpy(float)
            reference = np.where(np.isnan(beside), reference, beside)
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

    lines = videos[[*IDENTITY, "prompt_id", "prompt", "seed", "key"]].itertuples(index=False, name=None)
    return [n for _, n in sorted((place(video), n) for n, video in enumerate(lines))]


def prompt_hash(videos: pd.DataFrame) -> str:
    """12 hex digits that identify the set of prompts, to compare the sets of two tables."""
    text = "\n".join(sorted(set(videos["prompt"])))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
