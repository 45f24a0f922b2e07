"""Extrapolation along the denoising trajectory: formulas on plain values, floats, arrays or tensors alike.

Two papers, two formulas. SCOPE's Eq. 7 may be read as `newton` (second order at any spacing) or as `taylor` (the
literal "curvature by a second finite difference", first order only); `taylorseer` is that paper's recursion. The
doctests tell them apart on y = x^2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
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
    factors = [points[0][1]]
    for (before, _), (now, value) in pairwise(points):
        fresh = [value]
        for k in range(len(factors)):
            fresh.append((fresh[k] - factors[k]) / (now - before))
        factors = fresh
    distance = at - points[-1][0]
    return sum(factor * distance**k / math.factorial(k) for k, factor in enumerate(factors))


def weights(formula: Formula, levels: Sequence[float], at: float) -> list[float]:
    """The weights of a formula that is linear in its values, oldest level first; they sum to 1.

    >>> weights(newton, [0.0, 1.0, 2.0], at=3.0)
    [1.0, -3.0, 3.0]
    """
    basis = np.eye(len(levels))
    return [float(w) for w in formula(list(zip(levels, basis, strict=True)), at)]
