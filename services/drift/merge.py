"""One order for the records of many partitions, whatever order they were fetched in. Pure.

Records leave by (time, topic, partition, offset), where a record's time is its append time, never
less than that of the record before it in its partition. One leaves only when none that sorts before
it can still come: every partition has either been read past its time, or was read to an end that
was asked for after that time. So the order is a function of the log, and a checkpoint is one offset
and one time per partition.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import heapq

import msgspec

from tailrace.log.base import LogRecord

Place = tuple[str, int]
"""Topic and partition."""


class Done(msgspec.Struct, frozen=True):
    """How far a partition was handed out."""

    offset: int
    """Next offset."""
    time_ms: int
    """Time of the last record handed out."""


class Merge:
    """Holds records back until their turn. ``done`` is where a checkpoint left off."""

    def __init__(self, done: Mapping[Place, Done]) -> None:
        self.done = dict(done)
        self._newest_ms = {place: d.time_ms for place, d in done.items()}
        self._held = dict.fromkeys(done, 0)
        self._heap: list[tuple[int, str, int, int, LogRecord]] = []

    def add(self, record: LogRecord) -> None:
        """Take the next record of its partition."""
        place = (record.topic, record.partition)
        time_ms = max(self._newest_ms[place], record.time_ms)
        self._newest_ms[place] = time_ms
        self._held[place] += 1
        heapq.heappush(self._heap, (time_ms, record.topic, record.partition, record.offset, record))

    def ready(self, safe_ms: int, behind: set[Place]) -> Iterator[tuple[int, LogRecord]]:
        """Hand out what is due, each with its time.

        ``behind`` are the partitions not read to their known end; in the others nothing older
        than ``safe_ms`` can come any more.
        """
        limit_ms = min((self._bound(place, safe_ms, behind) for place in self.done), default=0)
        while self._heap and self._heap[0][0] < limit_ms:
            time_ms, topic, partition, offset, record = heapq.heappop(self._heap)
            self._held[topic, partition] -= 1
            yield time_ms, record
            self.done[topic, partition] = Done(offset + 1, time_ms)

    def wanted(self, room: int, safe_ms: int, behind: set[Place]) -> set[Place]:
        """The partitions to read on: those with room left, and always those all others wait for."""
        bounds = {place: self._bound(place, safe_ms, behind) for place in self.done}
        limit_ms = min(bounds.values(), default=0)
        return {p for p, bound in bounds.items() if self._held[p] < room or bound == limit_ms}

    def _bound(self, place: Place, safe_ms: int, behind: set[Place]) -> int:
        newest_ms = self._newest_ms[place]
        return newest_ms if place in behind else max(newest_ms, safe_ms)
