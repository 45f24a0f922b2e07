"""Extrapolation along the denoising trajectory: formulas on plain values, floats, arrays or tensors alike.

Two papers, two formulas. SCOPE's Eq. 7 may be read as `newton` (second order at any spacing) or as `taylor` (the
literal "curvature by a second finite difference", first order only); `taylorseer` is that paper's recursion. The
doctests tell them apart on y = x^2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np

Points = Sequence[tuple[float, Any]]  # (noise level, value), oldest first
Formula = Callable[[Points, float], Any]


def newton(points: Points, at: float) -> Any:
    """The polynomial through all `points`, read at `at`: exact to degree len(points) - 1 at any spacing.

    >>> newton([(0.0, 0.0), (1.0, 1.0), (2.0, 4.0)], at=3.0)
    9.0
    >>> newton([(3.0, 9.0), (2.0, 4.0), (0.5, 0.25)], at=-1.0)
    1.0
    """
    levels = [level for level, _ in reversed(points)]
    column = [value for _, value in reversed(points)]
    total, reach = column[0], 1.0
    for k in range(1, len(points)):
        reach *= at - levels[k - 1]
        column = [(a - b) / (levels[i] - levels[i + k]) for i, (a, b) in enumerate(pairwise(column))]
        total = total + reach * column[0]
    return total


def taylor(points: Points, at: float) -> Any:
    """v0 + h d1 + h^2/2 c with backward differences: the literal reading of SCOPE's Eq. 6 and 7.

    d1 is a secant, so a curvature term centred elsewhere leaves an error of order h^2 (facts: order 2, Newton 3).

    >>> taylor([(0.0, 0.0), (1.0, 1.0), (2.0, 4.0)], at=3.0)
    8.0
    """
    (s0, v0), older = points[-1], points[:-1]
    if not older:
        return v0
    h = at - s0
    s1, v1 = older[-1]
    d1 = (v0 - v1) / (s0 - s1)
    if len(older) == 1:
        return v0 + h * d1
    s2, v2 = older[-2]
    curvature = 2 * (d1 - (v1 - v2) / (s1 - s2)) / (s0 - s2)
    return v0 + h * d1 + 0.5 * h * h * curvature


def taylorseer(points: Points, at: float) -> Any:
    """TaylorSeer's recursion (Liu et al. 2025, Eq. 3): F_{k+1} = (F_k - F_k_previous) / last gap, sum F_k d^k / k!.

    The same gap divides every order, which is right for a constant interval only.

    >>> taylorseer([(0.0, 0.0), (1.0, 1.0), (2.0, 4.0)], at=3.0)
    8.0
    """
    distance = at - points[-1][0]
    return sum(factor * distance**k / math.factorial(k) for k, factor in enumerate(_factors(points)))


def _factors(points: Points) -> list[Any]:
    """TaylorSeer's F_0, F_1, ... at the newest point."""
    factors = [points[0][1]]
    for (before, _), (now, value) in pairwise(points):
        fresh = [value]
        for k in range(len(factors)):
            fresh.append((fresh[k] - factors[k]) / (now - before))
        factors = fresh
    return factors


def hicache(points: Points, at: float, scale: float = 0.5) -> Any:
    """TaylorSeer's recursion on Hermite polynomials (HiCache, arXiv 2508.16984): d^k becomes scale^k H_k(scale d).

    H_k are the physicists' polynomials; `scale` in (0, 1) contracts both their argument and their size. The constant
    and the slope term keep TaylorSeer's limits: H_0 = 1, and scale H_1(scale d) = 2 scale^2 d, equal to d at sqrt(1/2).

    >>> hicache([(0.0, 0.0), (1.0, 1.0)], at=2.0, scale=0.5)
    1.5
    """
    factors = _factors(points)
    x = scale * (at - points[-1][0])
    hermite = [1.0, 2.0 * x]
    while len(hermite) < len(factors):
        k = len(hermite)
        hermite.append(2.0 * x * hermite[-1] - 2.0 * (k - 1) * hermite[-2])
    return sum(factor * scale**k * hermite[k] / math.factorial(k) for k, factor in enumerate(factors))


def foca(points: Points, at: float) -> Any:
    """Forecast, then calibrate (FoCa, arXiv 2508.16211, Eq. 6 to 8): a BDF2 forecast, corrected by Heun's rule.

    With the feature as the state of an ODE and the slope f0 at the last full step (s0, y0) taken from the full step
    before it, f0 = (y0 - y1) / (s0 - s1), BDF2 becomes 4/3 y0 - 1/3 y1 + 2/3 (y0 - y1) = 2 y0 - y1 one gap ahead, a
    point on the line with the slope f0. The slope at the target is that of the forecast against y0, so Heun's result
    y0 + h/2 (f0 + f1), anchored at the last full step, lies on the same line: older points have no weight.

    >>> foca([(0.0, 0.0), (1.0, 1.0)], at=3.0)
    3.0
    >>> foca([(0.0, 0.0), (1.0, 1.0), (2.0, 4.0)], at=3.0)
    7.0
    >>> foca([(0.0, 0.0), (3.0, 9.0), (6.0, 36.0)], at=8.0)
    54.0
    """
    (s0, v0), older = points[-1], points[:-1]
    if not older:
        return v0
    (s1, v1), h = older[-1], at - s0
    slope = (v0 - v1) / (s0 - s1)
    forecast = v0 + h * slope
    slope_there = (forecast - v0) / h if h else slope
    return v0 + 0.5 * h * (slope + slope_there)


def adams_bashforth(points: Points, at: float) -> Any:
    """Two-step Adams-Bashforth with slopes by backward differences (the predictor of PrediT, arXiv 2602.18093).

    y = y0 + h [(1 + w/2) f0 - w/2 f1],  w = h / h1,  f0 = (y0 - y1) / h1,  f1 = (y1 - y2) / h2; at uniform spacing
    5/2 y0 - 2 y1 + 1/2 y2. With two points f1 is unknown and the rule is Euler's.

    >>> adams_bashforth([(0.0, 0.0), (1.0, 1.0), (2.0, 4.0)], at=3.0)
    8.0
    """
    (s0, v0), older = points[-1], points[:-1]
    if not older:
        return v0
    (s1, v1), h = older[-1], at - s0
    f0 = (v0 - v1) / (s0 - s1)
    if len(older) == 1:
        return v0 + h * f0
    s2, v2 = older[-2]
    w = h / (s0 - s1)
    return v0 + h * ((1 + w / 2) * f0 - w / 2 * (v1 - v2) / (s1 - s2))


FORECASTERS: dict[str, Formula] = {
    "newton": newton,
    "taylor": taylor,
    "taylorseer": taylorseer,
    "hicache": hicache,
    "foca": foca,
    "adams_bashforth": adams_bashforth,
}


@lru_cache(maxsize=1024)  # the slots of an AR unit ask for the same
def weights(formula: Formula, levels: tuple[float, ...], at: float) -> list[float]:
    """The weights of a formula that is linear in its values, oldest level first; they sum to 1.

    >>> weights(newton, (0.0, 1.0, 2.0), at=3.0)
    [1.0, -3.0, 3.0]
    """
    basis = np.eye(len(levels))
    return [float(w) for w in formula(list(zip(levels, basis, strict=True)), at)]
