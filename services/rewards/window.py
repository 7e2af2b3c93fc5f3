"""What a partition keeps by number: the newest ``max_records`` of each input, and nothing of turns
that began before the cut that follows from them.

    facts, by offset ── below a tick's floors ──> ripe, by turn ── not after the cut ──> deleted

A tick's floor is an input's end less ``max_records``. Of what lies below, the newest turn is the
cut: a turn that began then or before is evicted by that tick and gone for all later ones, wherever
its records lie and whenever they come. So one number of milliseconds says of any id whether it was
evicted; it only grows, is kept in the verdicts, and is a function of the log. A turn whose token is
ahead of the log (a gateway's clock) moves the cut no further than its record's own time, and stays
until the cut gets there. Pure; used by the memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
import heapq
from typing import NamedTuple

from services.rewards.ticks import INPUTS

NEVER_MS = -1
TURN, FEEDBACK, VERDICT = range(3)
"""In which order facts of one moment are deleted: each needs those behind it."""


class _Fact(NamedTuple):
    offset: int
    rank: int
    wanted_ms: int
    """Where it pushes the cut when it falls below the floor."""
    ms: int
    """It is deleted when the cut is here."""
    key: bytes


class Window:
    """One partition's. ``most``: how many records of each input are kept."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._facts: dict[str, list[_Fact]] = {kind: [] for kind in INPUTS}
        """Heaps by offset."""
        self._ripe: list[tuple[int, int, bytes]] = []
        """Heap of (ms, rank, key): below the floor."""
        self._turns: list[tuple[int, str]] = []
        """Heap of (when it began, interaction)."""
        self._wanted_ms = NEVER_MS
        self._cuts: deque[tuple[int, int]] = deque()
        """(tick, cut), oldest first, of ticks that moved it."""

    def turn(self, turn_ms: int, interaction_id: str) -> None:
        """Have :meth:`leaving` name an interaction."""
        heapq.heappush(self._turns, (turn_ms, interaction_id))

    def keep(self, kind: str, offset: int, rank: int, key: bytes, ms: int, time_ms: int) -> None:
        """Have a fact deleted once it is below the floor and the cut at ``ms``.

        ``time_ms``: when its record was appended.
        """
        heapq.heappush(self._facts[kind], _Fact(offset, rank, min(ms, time_ms), ms, key))

    def ripen(self, ms: int, rank: int, key: bytes) -> None:
        """Have a fact deleted once the cut is at ``ms``."""
        heapq.heappush(self._ripe, (ms, rank, key))

    def slide(self, tick: int, ends: Mapping[str, int]) -> tuple[int, int]:
        """The cut before a tick, and where the tick wants it. In tick order."""
        for kind, facts in self._facts.items():
            while facts and facts[0].offset < ends[kind] - self._most:
                fact = heapq.heappop(facts)
                self._wanted_ms = max(self._wanted_ms, fact.wanted_ms)
                self.ripen(fact.ms, fact.rank, fact.key)
        before = max((ms for at, ms in self._cuts if at < tick), default=NEVER_MS)
        return before, max(before, self._wanted_ms)

    def cut(self, tick: int, ms: int) -> None:
        """A tick moved the cut. In tick order; told again, it changes nothing."""
        if not self._cuts or self._cuts[-1][0] < tick:
            self._cuts.append((tick, ms))

    @property
    def cut_ms(self) -> int:
        """The newest cut that is known."""
        return self._cuts[-1][1] if self._cuts else NEVER_MS

    def leaving(self, until_ms: int) -> Iterator[str]:
        """Interactions that began up to then; each is named once."""
        while self._turns and self._turns[0][0] <= until_ms:
            yield heapq.heappop(self._turns)[1]

    def deleted(self, cut_ms: int) -> Iterator[bytes]:
        """Keys below the floors that the cut has reached; each is given once."""
        while self._ripe and self._ripe[0][0] <= cut_ms:
            yield heapq.heappop(self._ripe)[2]

    def passed(self, tick: int) -> None:
        """The verdict of a tick is deleted: a later one moved the cut on, or the time is over."""
        while len(self._cuts) > 1 and self._cuts[0][0] <= tick:
            self._cuts.popleft()

    def prune(self, before_ms: int) -> None:
        """Forget what began before a time: it is deleted for its age."""
        for _ in (*self.leaving(before_ms), *self.deleted(before_ms)):
            pass
        for facts in self._facts.values():
            while facts and facts[0].ms <= before_ms:
                heapq.heappop(facts)
