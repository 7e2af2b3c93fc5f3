"""Means, shares and their differences, each with its 95 % interval. Pure."""

from __future__ import annotations

from collections.abc import Sequence
import math

import msgspec

_Z95 = 1.959963984540054


class Estimate(msgspec.Struct, frozen=True):
    """A number and its interval; None where there is nothing to tell it from."""

    value: float | None = None
    low: float | None = None
    high: float | None = None


def mean(values: Sequence[float]) -> Estimate:
    """A mean, by the normal distribution.

    >>> mean([1.0, 1.0, 1.0])
    Estimate(value=1.0, low=1.0, high=1.0)
    """
    if not values:
        return Estimate()
    middle, error = _moments(values)
    return _around(middle, error)


def paired(differences: Sequence[float]) -> Estimate:
    """The mean of differences, each of one thing seen twice."""
    return mean(differences)


def unpaired(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """The difference of two means, second less first, of different things (Welch 1947)."""
    if not first or not second:
        return Estimate()
    (a, a_error), (b, b_error) = _moments(first), _moments(second)
    both = None if a_error is None or b_error is None else math.hypot(a_error, b_error)
    return _around(b - a, both)


def share(some: int, total: int) -> Estimate:
    """A share (Wilson 1927).

    >>> share(0, 0)
    Estimate(value=None, low=None, high=None)
    """
    if not total:
        return Estimate()
    part, z2 = some / total, _Z95**2
    middle = (part + z2 / (2 * total)) / (1 + z2 / total)
    half = _Z95 / (1 + z2 / total) * math.sqrt(part * (1 - part) / total + z2 / (4 * total**2))
    return Estimate(part, max(0.0, middle - half), min(1.0, middle + half))


def shares(first: tuple[int, int], second: tuple[int, int]) -> Estimate:
    """The difference of two shares (some, of all), second less first (Newcombe 1998, method 10)."""
    a, b = share(*first), share(*second)
    if a.value is None or b.value is None:
        return Estimate()
    assert None not in (a.low, a.high, b.low, b.high)
    low = math.hypot(b.value - b.low, a.high - a.value)  # type: ignore[operator]
    high = math.hypot(b.high - b.value, a.value - a.low)  # type: ignore[operator]
    return Estimate(b.value - a.value, b.value - a.value - low, b.value - a.value + high)


def _moments(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and its standard error; None: one value says nothing of that."""
    middle = math.fsum(values) / len(values)
    if len(values) < 2:
        return middle, None
    variance = math.fsum((value - middle) ** 2 for value in values) / (len(values) - 1)
    return middle, math.sqrt(variance / len(values))


def _around(middle: float, error: float | None) -> Estimate:
    if error is None:
        return Estimate(middle)
    return Estimate(middle, middle - _Z95 * error, middle + _Z95 * error)
