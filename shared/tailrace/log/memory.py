"""The log in memory: for tests of services and of user code. Same suite as the Kafka one.

Offsets, append times, transactions with control records, fencing and low watermarks behave as the
broker's do; nothing is written anywhere. Safe between threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
import random
import threading
import time

import msgspec

from tailrace.errors import Fenced, LogError, MissingTopic, TooLarge
from tailrace.log.base import Headers, LogRecord, Position
from tailrace.partition import partition_of
from tailrace.topics import MAX_RECORD_BYTES, Topic, named


class _Entry(msgspec.Struct):
    record: LogRecord
    state: str = "committed"
    """committed, open, aborted or control."""


class _Partition:
    def __init__(self) -> None:
        self.entries: list[_Entry] = []
        self.start = 0

    def stable_end(self) -> int:
        for entry in self.entries:
            if entry.state == "open":
                return entry.record.offset
        return len(self.entries)


class MemoryLog:
    """A broker that is this object. ``clock_ms`` gives append times."""

    def __init__(self, clock_ms: Callable[[], int] | None = None) -> None:
        self._clock_ms = clock_ms or (lambda: time.time_ns() // 1_000_000)
        self._topics: dict[str, list[_Partition]] = {}
        self._retentions_ms: dict[str, int | None] = {}
        self._committed: dict[tuple[str, str, int], int] = {}
        self._epochs: dict[str, int] = {}
        self._changed = threading.Condition(threading.RLock())

    def reach(self, timeout_s: float) -> None:
        """It is here."""

    def create(
        self, topics: Sequence[Topic], *, prefix: str = "", session_partitions: int = 12
    ) -> None:
        with self._changed:
            for topic in topics:
                name, count = named(topic, prefix), topic.partitions(session_partitions)
                self._topics.setdefault(name, [_Partition() for _ in range(count)])
                kept_ms = topic.retention_ms if topic.cleanup == "delete" else None
                self._retentions_ms.setdefault(name, kept_ms)

    def partitions(self, topic: str) -> int:
        return len(self._partitions(topic))

    def starts(self, topic: str) -> dict[int, int]:
        with self._changed:
            return {n: p.start for n, p in enumerate(self._partitions(topic))}

    def ends(self, topic: str) -> dict[int, int]:
        with self._changed:
            return {n: len(p.entries) for n, p in enumerate(self._partitions(topic))}

    def offsets_at(self, topic: str, time_ms: int) -> dict[int, int]:
        with self._changed:
            return {
                n: next(
                    (
                        e.record.offset
                        for e in p.entries[p.start :]
                        if e.record.time_ms >= time_ms and e.state != "control"
                    ),
                    len(p.entries),
                )
                for n, p in enumerate(self._partitions(topic))
            }

    def delete_before(self, topic: str, offsets: Mapping[int, int]) -> None:
        with self._changed:
            for number, offset in offsets.items():
                partition = self._partitions(topic)[number]
                partition.start = max(partition.start, min(offset, len(partition.entries)))

    def retention_ms(self, topic: str) -> int | None:
        self._partitions(topic)
        return self._retentions_ms[topic]

    def forget_group(self, group: str) -> None:
        with self._changed:
            for committed in [c for c in self._committed if c[0] == group]:
                del self._committed[committed]

    def producer(self, *, transactional_id: str | None = None) -> MemoryProducer:
        return MemoryProducer(self, transactional_id)

    def consumer(self, *, group: str | None = None, committed_only: bool = False) -> MemoryConsumer:
        return MemoryConsumer(self, group, committed_only)

    def close(self) -> None:
        """Nothing to let go of."""

    def _partitions(self, topic: str) -> list[_Partition]:
        try:
            return self._topics[topic]
        except KeyError:
            raise MissingTopic(f"unknown topic {topic!r}") from None


class MemoryProducer:
    """See :class:`tailrace.log.base.Producer`."""

    def __init__(self, log: MemoryLog, transactional_id: str | None) -> None:
        self._log = log
        self._id = transactional_id
        self._epoch = 0
        self._open: list[_Entry] | None = None

    def append(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        partition: int | None = None,
        headers: Headers | None = None,
    ) -> Future[Position]:
        if len(value or b"") > MAX_RECORD_BYTES:
            raise TooLarge(f"{topic}: record of {len(value or b'')} bytes is too large")
        with self._log._changed:
            self._check()
            if self._id and self._open is None:
                raise LogError(f"{topic}: append outside a transaction")
            partitions = self._log._partitions(topic)
            if partition is None and key is None:
                partition = random.randrange(len(partitions))
            elif partition is None and key is not None:
                partition = partition_of(key, len(partitions))
            assert partition is not None
            if partition >= len(partitions):
                raise LogError(f"{topic}: no partition {partition}")
            entry = self._put(topic, partition, value, key, headers)
            if self._open is not None:
                entry.state = "open"
                self._open.append(entry)
            self._log._changed.notify_all()
        done: Future[Position] = Future()
        done.set_result(Position(partition, entry.record.offset))
        return done

    def flush(self, timeout_s: float = 30.0) -> None:
        """Nothing is ever queued."""

    def begin(self) -> None:
        assert self._id, "a producer without transactional_id"
        with self._log._changed:
            if not self._epoch:
                self._epoch = self._log._epochs.get(self._id, 0) + 1
                self._log._epochs[self._id] = self._epoch
            self._check()
            assert self._open is None, "a transaction is open already"
            self._open = []

    def commit(self) -> None:
        self._end("committed")

    def abort(self) -> None:
        self._end("aborted")

    def close(self) -> None:
        if self._open is not None:
            self.abort()

    def _end(self, state: str) -> None:
        with self._log._changed:
            self._check()
            assert self._open is not None, "no transaction is open"
            touched = {(e.record.topic, e.record.partition) for e in self._open}
            for entry in self._open:
                entry.state = state
            for topic, partition in sorted(touched):
                self._put(topic, partition, None, None, None).state = "control"
            self._open = None
            self._log._changed.notify_all()

    def _check(self) -> None:
        if self._id and self._epoch and self._log._epochs[self._id] != self._epoch:
            for entry in self._open or []:
                entry.state = "aborted"
            self._open = None
            raise Fenced(f"a newer producer has transactional id {self._id!r}")

    def _put(
        self,
        topic: str,
        number: int,
        value: bytes | None,
        key: bytes | None,
        headers: Headers | None,
    ) -> _Entry:
        entries = self._log._partitions(topic)[number].entries
        record = LogRecord(
            topic=topic,
            partition=number,
            offset=len(entries),
            time_ms=self._log._clock_ms(),
            key=key,
            value=value,
            headers=dict(headers or {}),
        )
        entries.append(_Entry(record))
        return entries[-1]


class MemoryConsumer:
    """See :class:`tailrace.log.base.Consumer`."""

    def __init__(self, log: MemoryLog, group: str | None, committed_only: bool) -> None:
        self._log = log
        self._group = group
        self._committed_only = committed_only
        self._positions: dict[tuple[str, int], int] = {}

    def assign(self, positions: Mapping[tuple[str, int], int]) -> None:
        self._positions = dict(positions)

    def poll(self, timeout_s: float, max_records: int = 500) -> list[LogRecord]:
        deadline = time.monotonic() + timeout_s
        with self._log._changed:
            while True:
                before = dict(self._positions)
                records = self._ready(max_records)
                left = deadline - time.monotonic()
                if records or self._positions != before or left <= 0:
                    return records
                self._log._changed.wait(left)

    def _ready(self, max_records: int) -> list[LogRecord]:
        records: list[LogRecord] = []
        for (topic, number), position in self._positions.items():
            partition = self._log._partitions(topic)[number]
            end = partition.stable_end() if self._committed_only else len(partition.entries)
            position = max(position, partition.start)
            while position < end and len(records) < max_records:
                entry = partition.entries[position]
                hidden = ("control", "aborted") if self._committed_only else ("control",)
                if entry.state not in hidden:
                    records.append(entry.record)
                position += 1
            self._positions[topic, number] = position
        return records

    def position(self, topic: str, partition: int) -> int:
        return self._positions[topic, partition]

    def committed(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        assert self._group, "a consumer without a group commits nothing"
        found = ((p, self._log._committed.get((self._group, topic, p))) for p in partitions)
        return {p: offset for p, offset in found if offset is not None}

    def commit(self, topic: str, offsets: Mapping[int, int]) -> None:
        assert self._group, "a consumer without a group commits nothing"
        for partition, offset in offsets.items():
            self._log._committed[self._group, topic, partition] = offset

    def close(self) -> None:
        self._positions = {}
