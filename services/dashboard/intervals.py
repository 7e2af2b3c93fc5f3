"""95 % intervals of a share and of a mean, and quantiles. Pure."""

from __future__ import annotations

from collections.abc import Sequence
import math

_Z = 1.959963984540054
"""Standard normal, 97.5 %."""
_T = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
"""Student's t, 97.5 %, by degrees of freedom from 1."""


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """The interval of a share (Wilson 1927, score interval). ``trials`` > 0.

    >>> [round(end, 3) for end in wilson(8, 10)]
    [0.49, 0.943]
    """
    share, squared = successes / trials, _Z * _Z
    middle = (share + squared / (2 * trials)) / (1 + squared / trials)
    half = _Z * math.sqrt(share * (1 - share) / trials + squared / (4 * trials * trials))
    half /= 1 + squared / trials
    return max(0.0, middle - half), min(1.0, middle + half)


def student(freedom: int) -> float:
    """97.5 % quantile of Student's t; above 30 by Cornish and Fisher's expansion (Abramowitz and
    Stegun 26.7.5), right to 0.001.

    >>> student(10), round(student(60), 3)
    (2.228, 2.0)
    """
    if freedom <= len(_T):
        return _T[freedom - 1]
    return _Z + (_Z**3 + _Z) / (4 * freedom) + (5 * _Z**5 + 16 * _Z**3 + 3 * _Z) / (96 * freedom**2)


class Mean:
    """Count, mean and spread of numbers that come and go (Welford 1962, and backwards)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0
        self._squares = 0.0

    def add(self, value: float) -> None:
        """One more."""
        self.count += 1
        before = value - self.mean
        self.mean += before / self.count
        self._squares += before * (value - self.mean)

    def take_back(self, value: float) -> None:
        """One that was added before."""
        self.count -= 1
        if self.count == 0:
            self.mean = self._squares = 0.0
            return
        after = value - self.mean
        self.mean -= after / self.count
        self._squares = max(0.0, self._squares - after * (value - self.mean))

    def interval(self) -> tuple[float, float] | None:
        """Of the mean, by Student's t; None of fewer than two."""
        if self.count < 2:
            return None
        variance = self._squares / (self.count - 1)
        half = student(self.count - 1) * math.sqrt(variance / self.count)
        return self.mean - half, self.mean + half


def quantile(ordered: Sequence[float], share: float) -> float | None:
    """The value of ordered values below which ``share`` of them lie, interpolated; None of none.

    >>> quantile([1.0, 2.0, 3.0, 4.0], 0.5)
    2.5
    """
    if not ordered:
        return None
    at = share * (len(ordered) - 1)
    low, high = math.floor(at), math.ceil(at)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def rounded(value: float | None, digits: int = 4) -> float | None:
    """To so many significant digits; None of what is no number.

    >>> rounded(0.123456), rounded(float("nan")), rounded(123456.0)
    (0.1235, None, 123500.0)
    """
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{digits}g}")
