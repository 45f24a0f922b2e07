"""Extrapolation formulas along the denoising trajectory. Values are floats, arrays or tensors.

SCOPE's Eq. 7 has two readings: `newton`, second order at any spacing, and `taylor`, the literal "curvature by a second
finite difference", first order only. `taylorseer` is the recursion of the TaylorSeer paper. The doctests show how the
formulas differ on y = x^2.
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
    """The value at `at` of the polynomial through all `points`: exact up to degree len(points) - 1 at any spacing.

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

    d1 is the slope of a secant, not of the tangent at v0. The curvature term does not correct this, so the error is of
    order h^2. That of `newton` on three points is of order h^3.

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

    Every order is divided by the same gap, which is exact only for a constant interval.

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

    H_k are the physicists' Hermite polynomials. `scale` in (0, 1) makes both their argument and their value smaller.
    The constant term equals TaylorSeer's: H_0 = 1. The slope term is scale H_1(scale d) = 2 scale^2 d; at
    scale = sqrt(1/2) it equals TaylorSeer's d.

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

    The feature is the state of an ODE. (s0, y0) is the last full step, (s1, y1) the full step before it. The slope at
    s0 is f0 = (y0 - y1) / (s0 - s1). One gap ahead, BDF2 gives 4/3 y0 - 1/3 y1 + 2/3 (y0 - y1) = 2 y0 - y1, which lies
    on the line through y0 with slope f0. The slope f1 at the target is (forecast - y0) / h. Heun's rule
    y0 + h/2 (f0 + f1) gives a point on the same line. So older points have no weight.

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
    5/2 y0 - 2 y1 + 1/2 y2. With two points f1 is unknown, and Euler's rule is used.

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


def spectrum(points: Points, at: float, degree: int = 4, ridge: float = 0.1, share: float = 1.0) -> Any:
    """Ridge regression on Chebyshev polynomials (Spectrum, arXiv 2603.01623); levels must lie in [0, 1].

    With x(s) = (T_0, ..., T_degree)(2 s - 1), the rows x(s_i) in X and the values in V: C = (X'X + ridge I)^-1 X'V and
    the forecast is x(at) C. `share` is the paper's w, 1 as released: below 1 the line through the last two points gets
    the rest. Fewer points than degree + 1 give a valid forecast. The ridge draws every forecast towards 0, so the
    weights of the values do not sum to 1.

    At s = 0.5, T_0 and T_4 are 1, T_2 is -1 and the others are 0. So one value there has the weight 3 / (3 + ridge).

    >>> round(spectrum([(0.5, 31.0)], at=0.5), 9)
    30.0
    """
    seen = _chebyshev([level for level, _ in points], degree)
    gram = seen @ seen.T + ridge * np.eye(len(points))  # X (X'X + r I)^-1 = (X X' + r I)^-1 X
    factors = np.linalg.solve(gram, seen @ _chebyshev([at], degree)[0]).tolist()
    total = share * sum(factor * value for factor, (_, value) in zip(factors, points, strict=True))
    return total if share == 1.0 else total + (1 - share) * newton(points[-2:], at)


def _chebyshev(levels: Sequence[float], degree: int) -> Any:
    """T_0 to T_degree at 2 s - 1 for every level s: an array (levels, degree + 1)."""
    return np.polynomial.chebyshev.chebvander(2 * np.asarray(levels, dtype=np.float64) - 1, degree)


FORECASTERS: dict[str, Formula] = {
    "newton": newton,
    "taylor": taylor,
    "taylorseer": taylorseer,
    "hicache": hicache,
    "foca": foca,
    "adams_bashforth": adams_bashforth,
}


@lru_cache(maxsize=1024)  # all slots of an AR unit use the same arguments
def weights(formula: Formula, levels: tuple[float, ...], at: float) -> list[float]:
    """The weights of the values in `formula`, oldest level first. The formula must be linear.

    >>> weights(newton, (0.0, 1.0, 2.0), at=3.0)
    [1.0, -3.0, 3.0]
    """
    basis = np.eye(len(levels))
    return [float(w) for w in formula(list(zip(levels, basis, strict=True)), at)]
