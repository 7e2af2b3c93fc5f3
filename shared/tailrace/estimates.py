"""Means, shares and their differences with 95 % intervals, and quantiles. Pure.

In: numbers or counts. Out: an :class:`Estimate`, which prints as its value and its interval. The
one place for these formulas: ``tailrace compare`` and ``eval``, ``reward try``, the demo and the
dashboard all say the same of the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
import math

import msgspec

_Z = 1.959963984540054
"""Standard normal, 97.5 %."""
_T = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
"""Student's t, 97.5 %, by degrees of freedom from 1."""


class Estimate(msgspec.Struct, frozen=True):
    """A number and its interval; None where there is nothing to tell it from.

    >>> print(Estimate(0.5, 0.25, 0.75), Estimate(0.5), Estimate())
    0.5 [0.25, 0.75] 0.5 none
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.low is None:
            return number(self.value)
        return f"{number(self.value)} [{number(self.low)}, {number(self.high)}]"


def number(value: float | None) -> str:
    """To four digits, for people.

    >>> number(1 / 3), number(None)
    ('0.3333', 'none')
    """
    return "none" if value is None else f"{value:.4g}"


def mean(values: Sequence[float]) -> Estimate:
    """A mean, by Student's t (1908); one value has no interval.

    >>> mean([1.0, 1.0, 1.0])
    Estimate(value=1.0, low=1.0, high=1.0)
    """
    if not values:
        return Estimate()
    middle, error = _moments(values)
    return _around(middle, error, len(values) - 1)


def paired(differences: Sequence[float]) -> Estimate:
    """The mean of differences, each of one thing seen twice."""
    return mean(differences)


def unpaired(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """The difference of two means, second less first, of different things; their spreads may differ
    (Welch 1947, degrees of freedom by Satterthwaite 1946)."""
    if not first or not second:
        return Estimate()
    (a, a_error), (b, b_error) = _moments(first), _moments(second)
    if a_error is None or b_error is None:
        return Estimate(b - a)
    both = math.hypot(a_error, b_error)
    if not both:
        return Estimate(b - a, b - a, b - a)
    parts = (a_error / both) ** 4 / (len(first) - 1), (b_error / both) ** 4 / (len(second) - 1)
    return _around(b - a, both, 1 / sum(parts))


def share(some: int, total: int) -> Estimate:
    """A share, by :func:`wilson`.

    >>> share(0, 0)
    Estimate(value=None, low=None, high=None)
    """
    return Estimate(some / total, *wilson(some, total)) if total else Estimate()


def shares(first: tuple[int, int], second: tuple[int, int]) -> Estimate:
    """The difference of two shares (some, of all), second less first (Newcombe 1998, Statistics in
    Medicine 17:873, method 10)."""
    if not first[1] or not second[1]:
        return Estimate()
    (a_low, a_high), (b_low, b_high) = wilson(*first), wilson(*second)
    a, b = first[0] / first[1], second[0] / second[1]
    low, high = math.hypot(b - b_low, a_high - a), math.hypot(b_high - b, a - a_low)
    return Estimate(b - a, b - a - low, b - a + high)


def wilson(some: float, total: int) -> tuple[float, float]:
    """The score interval of a share (Wilson 1927). Of none at all everything is possible.

    ``some`` is also the sum of ``total`` scores from 0 to 1: no scores of that mean are spread
    wider than zeros and ones, so for them the interval is too wide rather than too narrow.

    >>> [round(end, 4) for end in wilson(8, 10)], wilson(0, 0)
    ([0.4902, 0.9433], (0.0, 1.0))
    """
    if not total:
        return 0.0, 1.0
    part, z2 = some / total, _Z**2
    middle = (part + z2 / (2 * total)) / (1 + z2 / total)
    half = _Z / (1 + z2 / total) * math.sqrt(part * (1 - part) / total + z2 / (4 * total**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def student(freedom: float) -> float:
    """97.5 % quantile of Student's t, ``freedom`` >= 1; right to 0.001 where that is whole.

    To 30 by table, between its rows by 1/freedom; above by Cornish and Fisher's expansion
    (Abramowitz and Stegun 26.7.5).

    >>> student(10), round(student(17.776), 3), round(student(60), 3)
    (2.228, 2.103, 2.0)
    """
    if freedom > len(_T):
        terms = (_Z**3 + _Z) / 4, (5 * _Z**5 + 16 * _Z**3 + 3 * _Z) / 96
        return _Z + terms[0] / freedom + terms[1] / freedom**2
    row = max(1, math.floor(freedom))
    here, after = _T[row - 1], _T[min(row, len(_T) - 1)]
    return here + (after - here) * max(0.0, freedom - row) * (row + 1) / freedom


def quantile(values: Sequence[float], share: float) -> float | None:
    """The value below which ``share`` of the values lie, interpolated (Hyndman and Fan 1996,
    type 7); None of none.

    >>> quantile([4.0, 1.0, 3.0, 2.0], 0.5)
    2.5
    """
    if not values:
        return None
    ordered = sorted(values)
    at = share * (len(ordered) - 1)
    low, high = math.floor(at), math.ceil(at)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def _moments(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and its standard error; None: one value says nothing of that."""
    count = len(values)
    middle = math.fsum(values) / count
    if count < 2:
        return middle, None
    # Squares of large numbers would overflow; a distance does not.
    return middle, math.dist(values, [middle] * count) / math.sqrt(count * (count - 1))


def _around(middle: float, error: float | None, freedom: float) -> Estimate:
    if error is None:
        return Estimate(middle)
    half = student(freedom) * error
    return Estimate(middle, middle - half, middle + half)
