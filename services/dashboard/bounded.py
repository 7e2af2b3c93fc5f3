"""A memory that forgets the oldest beyond a bound, and counts it; names that are not too many."""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import Generic, TypeVar

_NAME_CHARS = 60
OTHER = "other"
K = TypeVar("K")
V = TypeVar("V")


class Memory(OrderedDict[K, V], Generic[K, V]):
    """A dict of at most ``limit`` entries; what is put last is forgotten last.

    ``drops[reason]`` counts what was forgotten.

    >>> drops = Counter()
    >>> memory = Memory(2, drops, "too many")
    >>> for number in range(3):
    ...     _ = memory.put(number, number)
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


class Names:
    """The first ``limit`` names that are asked for, cut; every other one is ``other``. For what
    anybody may have written.

    >>> names = Names(2)
    >>> [names.of(name) for name in ("a", "b", "c", "a")]
    ['a', 'b', 'other', 'a']
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: set[str] = set()

    def of(self, name: str) -> str:
        """The name to count under."""
        name = name[:_NAME_CHARS]
        if name not in self._known and len(self._known) >= self._limit:
            return OTHER
        self._known.add(name)
        return name
