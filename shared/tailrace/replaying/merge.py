"""Several partitions read side by side, so that a reader may take each one's next record.

In: a log, where each partition begins and ends. Out: records by partition, in order. What is ahead
of the slowest partition is kept in memory up to a bound; past it the log is asked for the slowest
ones alone. Used by the replayer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from tailrace.errors import LogError
from tailrace.log.base import Log, LogRecord

Key = tuple[str, int]
"""Topic and partition."""
AHEAD_BYTES = 256 * 1024 * 1024
_BATCH = 5_000
_TIMEOUT_S = 60.0


class Merge:
    """Reads ``[start, end)`` of each partition. For one thread; its owner closes it."""

    def __init__(
        self,
        log: Log,
        starts: Mapping[Key, int],
        ends: Mapping[Key, int],
        *,
        ahead_bytes: int = AHEAD_BYTES,
        timeout_s: float = _TIMEOUT_S,
    ) -> None:
        self._ends = dict(ends)
        self._at = {key: at for key, at in starts.items() if at < ends[key]}
        """Where each partition is read next, of those that have not been read to the end."""
        self._waiting: dict[Key, deque[LogRecord]] = {key: deque() for key in starts}
        self._bytes = 0
        self._ahead_bytes = ahead_bytes
        self._timeout_s = timeout_s
        self._consumer = log.consumer()
        self._assigned = dict(self._at)
        self._consumer.assign(self._at)

    def head(self, key: Key) -> LogRecord | None:
        """The next record of a partition; None: there is no more. Raises LogError when nothing
        comes for a minute."""
        waiting = self._waiting[key]
        waited_s = 0.0
        while not waiting and key in self._at:
            waited_s = 0.0 if self._read(key) else waited_s + 0.5
            if waited_s > self._timeout_s:
                raise LogError(f"{key[0]}/{key[1]}: nothing comes from offset {self._at[key]}")
        return waiting[0] if waiting else None

    def take(self, key: Key) -> LogRecord:
        """The record that :meth:`head` gave, taken."""
        record = self._waiting[key].popleft()
        self._bytes -= _size(record)
        return record

    def close(self) -> None:
        """Let go of the consumer."""
        self._consumer.close()

    def _read(self, needed: Key) -> bool:
        """One poll; whether anything moved."""
        wanted = self._at
        if full := self._bytes > self._ahead_bytes:
            wanted = {key: at for key, at in self._at.items() if not self._waiting[key]}
        narrow = needed not in self._assigned or (
            self._bytes < self._ahead_bytes // 2 and self._assigned.keys() != wanted.keys()
        )
        if narrow or (full and not self._assigned.keys() <= wanted.keys()):
            self._assigned = dict(wanted)
            self._consumer.assign(wanted)
        before = dict(self._at)
        for record in self._consumer.poll(0.5, _BATCH):
            key = (record.topic, record.partition)
            if key in self._assigned and record.offset < self._ends[key]:
                self._waiting[key].append(record)
                self._bytes += _size(record)
        for key in self._assigned:
            self._at[key] = self._consumer.position(*key)
        moved = self._at != before
        for key in [key for key in self._assigned if self._at[key] >= self._ends[key]]:
            del self._at[key], self._assigned[key]
        return moved


def _size(record: LogRecord) -> int:
    return len(record.value or b"") + 500
