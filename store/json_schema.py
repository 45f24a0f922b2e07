"""Checks values against a JSON schema, with the few words that our schemas use.

These are type, enum, pattern, minimum, required, properties, additionalProperties and items. A word that is not known
raises, so that no part of a schema is silently ignored. `faults` says what is wrong, in words. `compiled` only says
whether something is wrong, ten times as fast; it is for many values of one schema. tests/test_bundle.py compares both
with the package `jsonschema`, which only the tests need.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import reduce
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
    _known(schema)
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


Test = Callable[[Any], bool]


def compiled(schema: Mapping[str, Any]) -> Test:
    """A function that says whether a value fits the schema: whether `faults` finds nothing. The schema is read once."""
    _known(schema)
    tests: list[Test] = []
    if schema.get("type"):
        tests.append(_typed(frozenset(_classes(_names(schema)))))
    if "enum" in schema:
        tests.append(lambda value: value in schema["enum"])
    if "pattern" in schema:
        search = re.compile(schema["pattern"]).search
        tests.append(lambda value: not isinstance(value, str) or search(value) is not None)
    if "minimum" in schema:
        least = schema["minimum"]
        tests.append(lambda value: type(value) not in (int, float) or value >= least)
    if {"required", "properties", "additionalProperties"} & schema.keys():
        tests.append(_compiled_members(schema))
    if "items" in schema:
        every = _compiled_each(schema["items"])
        tests.append(lambda value: not isinstance(value, list) or every(value))
    return reduce(_both, tests) if tests else lambda value: True


def _typed(classes: frozenset[type]) -> Test:
    return lambda value: type(value) in classes


def _both(first: Test, then: Test) -> Test:
    return lambda value: first(value) and then(value)


def _compiled_members(schema: Mapping[str, Any]) -> Test:
    """Whether a mapping has the required names, and members that fit; true for a value that is none."""
    required = frozenset(schema.get("required", ()))
    properties: Mapping[str, Any] = schema.get("properties", {})
    rules = {name: compiled(rule) for name, rule in properties.items()}
    others = schema.get("additionalProperties", True)
    each = _compiled_each(others) if isinstance(others, dict) else None

    typed = [(name, kinds) for name, kinds in zip(rules, map(_only_types, properties.values()), strict=True) if kinds]
    inner = [(name, rules[name]) for name, rule in properties.items() if not _only_types(rule)]

    def fits(value: Any) -> bool:  # loops and no generators: this is most of the time of reading a bundle
        if not isinstance(value, dict):
            return True
        names = value.keys()
        if not required <= names or (others is False and not names <= rules.keys()):
            return False
        if each and not each([value[name] for name in names if name not in rules] if rules else value.values()):
            return False
        for name, kinds in typed:
            if name in value and type(value[name]) not in kinds:
                return False
        for name, rule in inner:  # noqa: SIM110
            if name in value and not rule(value[name]):
                return False
        return True

    return fits


def _only_types(rule: Mapping[str, Any]) -> frozenset[type]:
    """The types of a rule that demands nothing else; empty for another rule."""
    return frozenset(_classes(_names(rule))) if rule.keys() == {"type"} else frozenset()


def _compiled_each(rule: Mapping[str, Any]) -> Callable[[Iterable[Any]], bool]:
    """Whether every one of several values fits; for a rule that only names types, without a call for each."""
    classes = _only_types(rule)
    if classes:
        return lambda values: classes.issuperset(map(type, values))
    one = compiled(rule)
    return lambda values: all(map(one, values))


def _known(schema: Mapping[str, Any]) -> None:
    unknown = schema.keys() - KNOWN - SILENT
    if unknown:
        raise NotImplementedError(f"a schema uses {', '.join(sorted(unknown))}, which is not checked here")


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
