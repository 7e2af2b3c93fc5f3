"""How often something happened lately, by append times. Pure."""

from __future__ import annotations


class Rate:
    """Counts by the second, of the last ``seconds`` alone.

    >>> rate = Rate(10)
    >>> for time_ms in (1000, 1500, 5000):
    ...     rate.add(time_ms)
    >>> rate.per_s(10_000), rate.per_s(14_999)
    (0.3, 0.1)
    """

    def __init__(self, seconds: int) -> None:
        self._seconds = seconds
        self._counts: dict[int, int] = {}

    def add(self, time_ms: int, count: int = 1) -> None:
        """It happened at ``time_ms``."""
        second = time_ms // 1000
        self._counts[second] = self._counts.get(second, 0) + count
        if len(self._counts) > self._seconds + 1:
            del self._counts[min(self._counts)]

    def per_s(self, now_ms: int) -> float:
        """Of the seconds before now."""
        oldest = now_ms // 1000 - self._seconds
        return sum(n for second, n in self._counts.items() if second >= oldest) / self._seconds
