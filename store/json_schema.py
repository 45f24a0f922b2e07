"""Checks values against a JSON schema, with the few words that our schemas use.

These are type, enum, pattern, minimum, required, properties, additionalProperties and items. A word that is not known
raises, so that no part of a schema is silently ignored. tests/test_bundle.py compares the results with the package
`jsonschema`, which only the tests need.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

KNOWN = {"type", "enum", "pattern", "minimum", "required", "properties", "additionalProperties", "items"}
SILENT = {"$schema", "$defs", "title", "description"}  # words that demand nothing
TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def faults(value: Any, schema: Mapping[str, Any], at: str = "") -> Iterator[str]:
    """What of `value` differs from `schema`, one line each, with the place: `run.seconds.total is a string, ...`."""
    unknown = schema.keys() - KNOWN - SILENT
    if unknown:
        raise NotImplementedError(f"a schema uses {', '.join(sorted(unknown))}, which is not checked here")
    wanted = _names(schema)
    if wanted and type(value) not in _classes(wanted):
        yield f"{at or 'it'} is {_short(value)}, want {' or '.join(wanted)}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{at or 'it'} is {_short(value)}, want one of {', '.join(map(str, schema['enum']))}"
    if "pattern" in schema and isinstance(value, str) and not re.search(schema["pattern"], value):
        yield f"{at or 'it'} is {_short(value)}, want text that matches {schema['pattern']}"
    if "minimum" in schema and type(value) in (int, float) and not value >= schema["minimum"]:
        yield f"{at or 'it'} is {value}, want at least {schema['minimum']}"
    if isinstance(value, dict):
        yield from _members(value, schema, at)
    if isinstance(value, list) and "items" in schema:
        yield from _items(value, schema["items"], at)


def _members(value: Mapping[str, Any], schema: Mapping[str, Any], at: str) -> Iterator[str]:
    prefix = f"{at}." if at else ""
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{prefix}{name} is missing"
    known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    for name, member in value.items():
        rule = known.get(name, others)
        if rule is False:
            yield f"{prefix}{name} is not known"
        elif rule is not True:
            yield from faults(member, rule, f"{prefix}{name}")


def _items(value: list[Any], rule: Mapping[str, Any], at: str) -> Iterator[str]:
    if rule.keys() == {"type"} and set(map(type, value)) <= _classes(_names(rule)):
        return  # long lists of numbers, without a call per number
    for n, item in enumerate(value):
        yield from faults(item, rule, f"{at}[{n}]")


def _names(schema: Mapping[str, Any]) -> list[str]:
    given = schema.get("type", [])
    return [given] if isinstance(given, str) else given


def _classes(names: list[str]) -> set[type]:
    return {kind for name in names for kind in TYPES[name]}


def _short(value: Any) -> str:
    """A value in at most 40 characters."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
