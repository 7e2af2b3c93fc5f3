"""A mean of numbers that come and go, with its 95 % interval, and rounding. Pure."""

from __future__ import annotations

import math

from tailrace.estimates import student


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


def rounded(value: float | None, digits: int = 4) -> float | None:
    """To so many significant digits; None of what is no number.

    >>> rounded(0.123456), rounded(float("nan")), rounded(123456.0)
    (0.1235, None, 123500.0)
    """
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{digits}g}")
