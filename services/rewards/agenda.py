"""Things by the time at which somebody asks for them. Pure; used by the memory and the retention.

What is no longer wanted before its time is not looked for one by one: when there may be as many
such things as others, all of them are dropped. So it is never much larger than what is wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
import heapq
from itertools import count
from typing import Generic, TypeVar

T = TypeVar("T")
_SMALL = 1000
"""With fewer than this nothing is dropped early."""


class Agenda(Generic[T]):
    """``wanted``: whether a thing is still to be given."""

    def __init__(self, wanted: Callable[[T], bool]) -> None:
        self._wanted = wanted
        self._heap: list[tuple[int, int, T]] = []
        self._number = count()
        self._most = _SMALL

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, time_ms: int, what: T) -> None:
        """Have a thing given at a time; things of one time in the order they were added."""
        heapq.heappush(self._heap, (time_ms, next(self._number), what))
        if len(self._heap) > self._most:
            self._heap = [one for one in self._heap if self._wanted(one[2])]
            heapq.heapify(self._heap)
            self._most = 2 * len(self._heap) + _SMALL

    def before(self, time_ms: int) -> Iterator[T]:
        """What was to be given before a time; each is given once."""
        while self._heap and self._heap[0][0] < time_ms:
            yield heapq.heappop(self._heap)[2]
