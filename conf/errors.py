"""The error for a configuration that cannot be run."""

from __future__ import annotations

import difflib


class ConfigError(ValueError):
    """The configuration cannot be run. The message says what was given, what is wanted and what to change."""


def nearest(wrong: str, known: list[str]) -> str:
    """`; did you mean X?`, or all known names if none is similar to `wrong`."""
    close = difflib.get_close_matches(wrong, known, n=1, cutoff=0.6)
    close = close or [name for name in sorted(known) if wrong and name.endswith(f"_{wrong}")]
    return f"; did you mean {close[0]}?" if close else f"; there are: {', '.join(sorted(known))}"
