"""Contrast of colours as WCAG 2 defines it, and colours adjusted until they can be seen on a background."""

from __future__ import annotations

TEXT, MARK = 4.5, 3.0  # least contrast of text and of marks with their background
GROUNDS = {"light": "#ffffff", "dark": "#1d2126"}  # behind figures and cards (--card in page.css)


def contrast(one: str, other: str) -> float:
    """The contrast of two colours `#rrggbb`, from 1 (equal) to 21 (black and white).

    >>> round(contrast("#000000", "#ffffff"), 1)
    21.0
    """
    low, high = sorted(map(_luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def legible(colour: str, ground: str, least: float = MARK) -> str:
    """The colour, mixed with as little black or white as gives a contrast of `least` with the background `ground`.

    >>> legible("#22262b", "#ffffff")
    '#22262b'
    """
    goal = "#ffffff" if contrast("#ffffff", ground) > contrast("#000000", ground) else "#000000"
    for percent in range(0, 101, 2):
        mixed = _mix(colour, goal, percent / 100)
        if contrast(mixed, ground) >= least:
            return mixed
    return goal


def _channels(colour: str) -> list[int]:
    return [int(colour[n : n + 2], 16) for n in (1, 3, 5)]


def _luminance(colour: str) -> float:
    shares = [value / 255 for value in _channels(colour)]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _mix(colour: str, other: str, share: float) -> str:
    pairs = zip(_channels(colour), _channels(other), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in pairs)
