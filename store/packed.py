"""The JSON text of a record in a bundle: curves as differences, decisions as one letter each, schedules once.

Each part of a record is written as JSON once. The text gives its checksum, its seal and its place in the line.
"""

from __future__ import annotations

import hashlib
import json
import marshal
import re
from collections.abc import Mapping, Sequence
from operator import sub
from typing import Any

from store import checks
from store.record import CURVES, Record

DECIMALS = {"psnr": 2}  # of per-frame values in a bundle: 0.01 dB
OTHER_DECIMALS = 4
SHARED = ("iteration", "segment", "unit", "slots", "active", "branch", "sigma", "step")  # of a decision, as scheduled
MODES = {"cache": "c", "predict": "p", "recompute": "r"}
FIRST = b'{"iteration":'  # how a line of a trace begins
REST = re.compile(rb',"mode":"([a-z]+)"[^\n]*\}(?=\n|\Z)')  # a line from its mode on
_LETTERS = {mode.encode(): letter for mode, letter in MODES.items()}
Schedule = dict[str, list[Any]]


def canonical(content: Any) -> str:
    """The JSON text that checksums are made of: names in order, no spaces, ASCII."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def sha256(text: str) -> str:
    """The checksum (hex) of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def line(kind: str, text: str) -> str:
    """A line of a bundle, from the canonical text of its content."""
    return f'{{"kind":"{kind}","sha256":"{sha256(text)}","content":{text}}}\n'


def record_text(record: Record, run: str, quality: Mapping[str, Any] | None, ledger: Mapping[str, str] | None) -> str:
    """The canonical text of a record's content.

    run: the canonical text of run.json. quality: the content of quality.json, or None. ledger: as of `decisions`.
    """
    model, cell, key = record.path.parts[-3:]
    without = (CURVES, *checks.ADDED)
    curves = (quality or {}).get(CURVES) or {}
    scores = None if quality is None else {name: of for name, of in quality.items() if name not in without}
    parts = {"run": run, "model": canonical(model), "cell": canonical(cell), "key": canonical(key)}
    parts["scores"] = canonical(scores)
    of_curves = [f"{canonical(name)}:{curve(name, values)}" for name, values in sorted(curves.items()) if values]
    parts["curves"] = "{" + ",".join(of_curves) + "}"
    parts["ledger"] = canonical(ledger)
    if not record.run.get("produced_by"):
        parts["config"] = canonical(record.config)
    return "{" + ",".join([f'"{name}":{parts[name]}' for name in sorted(parts)]) + "}"


def curve(name: str, values: Sequence[float | None]) -> str:
    """The canonical text of per-frame values: whole numbers of 10^-decimals, each as the difference from the last one.

    Differences are small, and so compress better.

    >>> curve("psnr", [30.0, None, 30.02, 29.99])
    '{"decimals":2,"steps":[3000,null,2,-3]}'
    """
    decimals = DECIMALS.get(name, OTHER_DECIMALS)
    scale = 10**decimals
    given = [value for value in values if value is not None]
    known = list(map(round, [value * scale for value in given]))
    steps: list[int | None] = list(map(sub, known, [0, *known]))
    if len(steps) < len(values):
        left = iter(steps)
        steps = [None if value is None else next(left) for value in values]
    return f'{{"decimals":{decimals},"steps":[{",".join(map(_TEXTS.__getitem__, steps))}]}}'


class _Texts(dict[int | None, str]):
    """The JSON text of whole numbers. The same small differences come again and again."""

    def __missing__(self, value: int | None) -> str:
        self[value] = text = json.dumps(value)
        return text


_TEXTS = _Texts()


class Schedules:
    """The schedules of a bundle so far, and the checksum of each."""

    def __init__(self) -> None:
        self._names: dict[bytes, str] = {}
        self._texts: dict[bytes, tuple[str, int]] = {}  # by the text of all lines before their modes: name, lines

    def decisions(self, trace: bytes) -> tuple[dict[str, str] | None, Schedule | None]:
        """The decisions of a trace as one letter each, None if it has none; and their schedule, if it is new.

        Almost every trace has a known schedule. It is found by the text of the lines before their modes, and not
        parsed again.
        """
        pieces = REST.split(trace)
        text, modes = b"".join(pieces[:-1:2]), pieces[1::2]
        name, count = self._texts.get(text, ("", 0))
        if count == len(modes) > 0 and pieces[-1] in (b"", b"\n"):
            return {"schedule": name, "modes": "".join([_LETTERS[mode] for mode in modes])}, None
        entries = json.loads(b"[%b]" % b",".join(trace.splitlines()))
        if not entries:
            return None, None
        schedule = {name: [entry.get(name) for entry in entries] for name in SHARED}
        name, fresh = self._name(schedule)
        if _as_written(pieces):
            self._texts[text] = name, len(modes)
        modes_text = "".join([MODES[entry["mode"]] for entry in entries])
        return {"schedule": name, "modes": modes_text}, schedule if fresh else None

    def _name(self, schedule: Schedule) -> tuple[str, bool]:
        """The checksum of a schedule, and whether it is new.

        `marshal` finds a known one in a quarter of the time of the checksum; in version 2 equal values of equal types
        have equal bytes.
        """
        packed = marshal.dumps(schedule, 2)
        name = self._names.get(packed) or sha256(canonical(schedule))
        fresh = name not in self._names.values()
        self._names[packed] = name
        return name, fresh


def _as_written(pieces: list[bytes]) -> bool:
    """Whether the lines of a trace are as `engine.ledger.write` makes them: the names of `SHARED`, then the mode.

    pieces: text before a mode, mode, text before the next mode, ..., text after the last line.
    """
    places = pieces[:-1:2]
    begins = places and places[0].startswith(FIRST) and all(place.startswith(b"\n" + FIRST) for place in places[1:])
    return bool(begins) and b"".join(places).count(b"\n") == len(places) - 1 and pieces[-1] in (b"", b"\n")
