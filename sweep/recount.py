"""Counts the FLOPs of a finished record again, from its settings and its trace."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from hydra.utils import get_class

from engine.fingerprint import code_of
from engine.ledger import Entry
from engine.produce import Produced, account
from engine.row import Mode
from engine.weights import WeightsError
from store import Record

FUNCTIONS_OF_THE_TRACE = ("flops", "forwards", "iterations", "segments", "decisions")
EXACT = 1e-9  # allowed relative difference of a sum between machines


def recount(record: Record) -> tuple[str, str]:
    """(what is wrong, why it could not be counted); both are "" if the count is right or the record has none."""
    run = record.run
    if not run.get("flops") or record.status != "ok":
        return "", ""
    if "counted_by" not in run:
        return "", "an older version did not record which code counted them"
    try:
        target, wanted, base = _settings(record)
        kind = get_class(target)
        if code_of(kind.price) != run["counted_by"]:  # type: ignore[attr-defined]
            return "", "the code that counts them has changed since"
        model, original = (_model(target, json.dumps(settings)) for settings in (wanted, base))
        found = account(model, Produced(ledger=list(map(entry, record.trace()))), original)
    except (WeightsError, ImportError, AttributeError) as error:
        return "", " ".join(str(error).split())
    except (TypeError, ValueError, KeyError) as error:
        return f"its FLOPs cannot be counted again: {' '.join(str(error).split())}", ""
    wrong = [name for name in FUNCTIONS_OF_THE_TRACE if name in run and not _alike(run[name], found[name])]
    return (f"{', '.join(wrong)} in run.json: the trace gives another count" if wrong else ""), ""


def entry(line: Mapping[str, Any]) -> Entry:
    """The ledger entry of a line of trace.jsonl."""
    plain = {name: _tuples(value) for name, value in line.items()}
    return Entry(**{**plain, "mode": Mode(plain["mode"])})


def _settings(record: Record) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """The backbone's class, the settings of the video, and those of its Original."""
    base = dict(record.config["model"])
    target = str(base.pop("_target_"))
    made = record.run["produced_by"]["model"]
    own = {name: value for name, value in made.items() if name not in ("class", "code")}
    return target, {**base, **own}, base


@lru_cache(maxsize=8)
def _model(target: str, settings: str) -> Any:
    kind: Any = get_class(target)
    return kind(kind.Settings(**json.loads(settings)), torch.device("cpu"))


def _alike(said: Any, found: Any) -> bool:
    if isinstance(said, Mapping) and isinstance(found, Mapping):
        return all(_alike(said.get(name), value) for name, value in found.items())
    if isinstance(said, float) or isinstance(found, float):
        return said is not None and math.isclose(said, found, rel_tol=EXACT)
    return bool(said == found)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
