"""The numbers that the SCOPE paper prints (arXiv 2604.02979): Tables 1, 2 and 12, and peak memory."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

FOLDER = Path(__file__).parent / "published"
MODELS = {"skyreels": "skyreels", "magi1": "magi", "skyreels_tiny": "skyreels", "magi1_tiny": "magi"}
METHODS = {
    "original": "Original",
    "delta_dit": "Delta-DiT",
    "teacache": "TeaCache",
    "taylorseer": "TaylorSeer",
    "flowcache": "FlowCache",
    "scope": "SCOPE",
}
ONE_LINE = "Delta-DiT"  # has no slow and fast in print
COLUMNS = {
    "time_s": "time_s",
    "speedup": "speedup",
    "flops_P": "flops_pf",
    "flops_speedup": "flops_speedup",
    "vbench": "vbench",
    "lpips": "lpips",
    "ssim": "ssim",
    "psnr": "psnr",
}
PRINTED = (*COLUMNS.values(), "peak_memory_gb")


@cache
def table(name: str) -> pd.DataFrame:
    """A published table as text: `table1`, `table2`, `table12`, `other`, `counts`, `sources`, or `elsewhere`.

    `elsewhere` holds what other papers print for `table1`. "?" stands for a value that the paper does not give.
    """
    return pd.read_csv(FOLDER / f"{name}.csv", dtype=str, keep_default_na=False)


def source(name: str) -> dict[str, str]:
    """The source of the published table `name`, and the `setting` and `convention` of its numbers."""
    return next(line for line in table("sources").to_dict("records") if line["table"] == name)


def cells(identity: Mapping[str, Any]) -> dict[str, float]:
    """The published numbers for a line of the main table, by our column names; empty if the paper has none.

    >>> cells({"model": "skyreels", "method": "scope", "speed": "fast", "variant": ""})["speedup"]
    4.73
    """
    model, method = MODELS.get(identity["model"]), METHODS.get(identity["method"])
    if not model or not method or identity["variant"]:
        return {}
    speed = "fast" if identity["speed"] == "paper" else identity["speed"]  # the paper's core
    name = f"{method}-{speed}" if speed and method != ONE_LINE else method
    lines = [line for line in table("table1").to_dict("records") if (line["model"], line["method"]) == (model, name)]
    numbers = {ours: float(line[theirs]) for line in lines for theirs, ours in COLUMNS.items() if line[theirs]}
    if (identity["method"], speed) in (("original", ""), ("scope", "fast")):
        other = table("other").set_index("key")["value"]
        numbers["peak_memory_gb"] = float(other[f"peak_mem_short_{model}_{identity['method']}_GB"])
    return numbers


def comparable(identity: Mapping[str, Any], estimated: bool, random: bool) -> str:
    """Whether the published numbers of this line can be compared with ours, in words."""
    if not cells(identity):
        return "not published"
    if identity["method"] != "original" and not identity["speed"]:
        return "no: default settings, not the paper's point"
    if identity["model"].endswith("_tiny"):
        return "no: tiny preset"
    reasons = ["random weights"] * random + ["the paper does not state the thresholds"] * estimated
    return f"no: {', '.join(reasons)}" if reasons else "speedups only: another GPU"
