"""SCOPE's parts one at a time: every row of its fast point in which a single setting departs from it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from reports.formats import pipes, tabular
from reports.metric import BY_NAME
from reports.records import ROW, Study, settings
from reports.tables import protocol, shown
from store import writing

TITLES = {
    "selective": "selective computation",
    "predictor": "predictor",
    "decay": "decay of the score after a prediction",
    "max_skip": "most skipped steps in a row",
    "warmup": "first steps always computed",
    "interval_ratio": "share of the valid interval forwarded, by stage",
}
COLUMNS = ("time_s", "speedup", "flops_speedup", "lpips", "ssim", "psnr")
CAPTION = "Parts of SCOPE one at a time, each against its fast point; * the point's own value."
HEAD = ["model", "setting", "value", "videos"]


def table(study: Study, frame: pd.DataFrame) -> pd.DataFrame:
    """A line per model, setting and value, the operating point's own value among them, with `own` true."""
    lines = []
    main = frame.set_index(ROW, drop=False)
    for model in study.models:
        rows = list(study.varied(model, "scope", "fast"))
        own = [(row, group) for row, group in rows if row["variant"] == ""]
        single = [
            (row, group)
            for row, group in rows
            if len(c := group["changed"].iloc[0]) == 1 and next(iter(c)).startswith("method.")
        ]
        for setting in sorted({next(iter(group["changed"].iloc[0])) for _, group in single}):
            name = setting.partition(".")[2]
            here = [pair for pair in single if setting in pair[1]["changed"].iloc[0]]
            for row, group in [*own, *here]:
                value = (settings(study.record(group.iloc[0])).get("method") or {}).get(name)
                line = main.loc[tuple(row.values())].to_dict()
                told = {"setting": TITLES.get(name, name), "value": str(value), "own": not row["variant"]}
                lines.append(line | told)
    kept = [*HEAD, "own", *(f"{name}{end}" for name in COLUMNS for end in ("", "_low", "_high")), "missing"]
    return pd.DataFrame(lines, columns=kept)


def write(study: Study, frame: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Write `ablations`.csv, .md and .tex into `folder` if there is anything to say; the table."""
    found = table(study, frame)
    if len(found):
        printed, under = _printed(found), [CAPTION, *protocol(study)]
        texts = {
            "csv": found.to_csv(index=False, float_format="%.6g"),
            "md": "\n\n".join([pipes(printed), *under]) + "\n",
            "tex": tabular(printed, "ablations", " ".join(under), left=3),
        }
        for suffix, text in texts.items():
            with writing(folder / f"ablations.{suffix}") as draft:
                draft.write_text(text, encoding="utf-8")
    return found


def _printed(found: pd.DataFrame) -> pd.DataFrame:
    values = [line["value"] + "*" * bool(line["own"]) for _, line in found.iterrows()]
    columns = {"model": found["model"], "setting": found["setting"], "value": values, "videos": found["videos"]}
    for name in COLUMNS:
        if found[name].notna().any():
            columns[BY_NAME[name].title] = [shown(line, BY_NAME[name], interval=True) for _, line in found.iterrows()]
    return pd.DataFrame(columns)
