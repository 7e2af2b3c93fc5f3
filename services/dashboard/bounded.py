"""A memory that forgets the oldest beyond a bound, and counts it."""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Memory(OrderedDict[K, V], Generic[K, V]):
    """A dict of at most ``limit`` entries; what is put last is forgotten last.

    ``drops[reason]`` counts what was forgotten.

    >>> drops = Counter()
    >>> memory = Memory(2, drops, "too many")
    >>> for number in range(3):
    ...     memory.put(number, number)
    >>> list(memory), drops
    ([1, 2], Counter({'too many': 1}))
    """

    def __init__(self, limit: int, drops: Counter[str], reason: str) -> None:
        super().__init__()
        self._limit = limit
        self._drops = drops
        self._reason = reason

    def put(self, key: K, value: V) -> tuple[K, V] | None:
        """Remember; what was forgotten for it, if anything."""
        self[key] = value
        self.move_to_end(key)
        if len(self) <= self._limit:
            return None
        self._drops[self._reason] += 1
        return self.popitem(last=False)
