"""The lines of the published tables, and which of our lines corresponds to each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from reports import published

NAMES = {"skyreels": ("skyreels", "skyreels_tiny"), "magi": ("magi1", "magi1_tiny")}  # ours, the full size first
POINTS = {  # operating points for lines of Table 2 that are not called table2_row1, table2_row2, ...
    ("skyreels", "3(core)"): "fast",
    ("magi", "1"): "slow",
    ("magi", "2(core)"): "fast",
}
KEPT = {"skyreels": 10 / 50, "magi": 20 / 64}  # of the steps, in Table 12


@dataclass(frozen=True)
class Claim:
    """A line of a published table, and the method and operating point of our line for it."""

    table: str
    name: str  # as the paper names it
    model: str  # "skyreels" or "magi"
    numbers: dict[str, float]
    method: str
    speed: str = ""
    taus: tuple[float, float] | None = None  # the thresholds that the line is of, where the paper states them
    unstated: bool = False  # the paper does not say with which setting the line was made
    fraction: float = 0.0  # of the steps that a line with fewer steps keeps


def claims() -> Iterator[Claim]:
    """The 35 lines of Tables 1, 2 and 12 in the paper's order."""
    ours = {theirs: name for name, theirs in published.METHODS.items()}
    for line in published.table("table1").to_dict("records"):
        name, _, speed = line["method"].partition("-")
        if line["method"] == published.ONE_LINE:
            name, speed = line["method"], "fast"  # our slow point is the same
        if line["method"] == "SCOPE-fast":
            speed = "paper"  # its core configuration; our fast point is tuned on the tiny models
        unstated = name not in ("Original",)
        yield Claim("table1", line["method"], line["model"], _numbers(line), ours[name], speed, unstated=unstated)
    for line in published.table("table2").to_dict("records"):
        taus = None if "?" in line["tau_c"] else (float(line["tau_c"]), float(line["tau_p"]))
        name = f"{line['row']}: {line['tau_c']}, {line['tau_p']}"
        speed = POINTS.get((line["model"], line["row"]), f"table2_row{line['row'][0]}")
        yield Claim("table2", name, line["model"], _numbers(line), "scope", speed, taus, unstated=taus is None)
    for line in published.table("table12").to_dict("records"):
        name, _, steps = line["config"].partition("-")
        whole = steps in ("50step", "64step")
        method = "scope" if name == "SCOPE" else "original" if whole else "reduced_steps"
        speed = "fast" if method == "scope" else ""
        fraction = KEPT[line["model"]] if method == "reduced_steps" else 0.0
        yield Claim(
            "table12", line["config"], line["model"], _numbers(line), method, speed, None, method == "scope", fraction
        )


def _numbers(line: dict[str, str]) -> dict[str, float]:
    return {ours: float(line[theirs]) for theirs, ours in published.COLUMNS.items() if line.get(theirs)}
