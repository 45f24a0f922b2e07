"""The error for a configuration that cannot be run."""

from __future__ import annotations

import difflib


class ConfigError(ValueError):
    """The configuration cannot be run. The message says what was given, what is wanted and what to change."""


def meant(wrong: str, known: list[str]) -> str:
    """The name that is meant by a wrong one: the same in the plural or singular, then the last part of a dotted name,
    then the most similar. "" if there is none.

    >>> meant("seed", ["speed", "seeds"]), meant("methods", ["method.order", "method"]), meant("steps", ["model.steps"])
    ('seeds', 'method', 'model.steps')
    """
    for name in known:
        if name.rstrip("s") == wrong.rstrip("s"):
            return name
    for name in known:
        if name.rpartition(".")[2].rstrip("s") == wrong.rpartition(".")[2].rstrip("s"):
            return name
    close = difflib.get_close_matches(wrong, known, n=1, cutoff=0.6)
    return close[0] if close else ""


def nearest(wrong: str, known: list[str]) -> str:
    """`; did you mean X?`, or all known names if none is similar to `wrong`."""
    close = difflib.get_close_matches(wrong, known, n=1, cutoff=0.6)
    close = close or [name for name in sorted(known) if wrong and name.endswith(f"_{wrong}")]
    return f"; did you mean {close[0]}?" if close else f"; there are: {', '.join(sorted(known))}"


def one_of(name: str, given: object, allowed: tuple[object, ...], wanted: str) -> None:
    """Raise ConfigError unless the setting `name` has an allowed value; `wanted` names them."""
    if given not in allowed:
        raise ConfigError(f"{name}={given} is unknown; want {wanted}")
