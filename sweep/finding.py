"""One line of what `python -m sweep.doctor` found."""

from __future__ import annotations

from dataclasses import dataclass

OK, WARNING, MISSING = "ok", "warning", "missing"


@dataclass(frozen=True)
class Finding:
    """One line of the output. Only with the state `missing` the model cannot run."""

    what: str
    state: str
    found: str
    remedy: str = ""
