"""The log as the services see it: append, read from an offset or a time, commit, transact.

Two implementations under one test suite: :mod:`tailrace.log.kafka` (confluent-kafka) and
:mod:`tailrace.log.memory`. Consumers are assigned by hand: a process says which partitions it reads
and from where. What a group committed is only a number that it may ask for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Protocol

import msgspec

from tailrace.topics import Topic

Headers = Mapping[str, bytes]


class Position(msgspec.Struct, frozen=True, order=True):
    """A partition and an offset of one topic, as :meth:`Producer.append` reports them."""

    partition: int
    offset: int


class LogRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One record as it lies on the log."""

    topic: str
    partition: int
    offset: int
    time_ms: int
    """Append time, by the broker's clock."""
    key: bytes | None
    value: bytes | None
    headers: dict[str, bytes]


class Producer(Protocol):
    """Appends records: idempotent, acks=all, murmur2 partitions. Safe to use from several
    threads."""

    def append(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        partition: int | None = None,
        headers: Headers | None = None,
    ) -> Future[Position]:
        """Queue one record. The future ends with its position, or with LogError.

        Raises TooLarge or, when the queue is full, LogError at once.
        """

    def flush(self, timeout_s: float = 30.0) -> None:
        """Wait until everything queued is acknowledged. Raises LogError when it is not in time."""

    def begin(self) -> None:
        """Begin a transaction (the first call fences older producers of this id). Raises Fenced."""

    def commit(self) -> None:
        """Make the transaction visible, whole. Raises Fenced or LogError.

        The broker writes its control records in the moment after it answered: ends read right
        away may not count them yet, a committed reader waits for them.
        """

    def abort(self) -> None:
        """Drop the transaction."""

    def close(self) -> None:
        """Flush what can be flushed in a few seconds and end."""


class Consumer(Protocol):
    """Reads records of the partitions it was given. For one thread."""

    def assign(self, positions: Mapping[tuple[str, int], int]) -> None:
        """Read these (topic, partition) from these offsets, in place of what was assigned
        before."""

    def poll(self, timeout_s: float, max_records: int = 500) -> list[LogRecord]:
        """Records that are there, in order within each partition.

        Empty after ``timeout_s`` without any, or earlier when a position passed records that
        are not delivered (control records, aborted ones).
        """

    def position(self, topic: str, partition: int) -> int:
        """The offset that is read next: past everything polled, control records at the end
        included."""

    def committed(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        """What this group committed, by partition; absent where it never did."""

    def commit(self, topic: str, offsets: Mapping[int, int]) -> None:
        """Remember the next offset to read, by partition, for this group. Synchronous."""

    def close(self) -> None:
        """Let go."""


class Log(Protocol):
    """A broker, or what stands for one."""

    def reach(self, timeout_s: float) -> None:
        """Ask for a sign of life. Raises LogError when none comes in time."""

    def create(
        self, topics: Sequence[Topic], *, prefix: str = "", session_partitions: int = 12
    ) -> None:
        """Make the topics that are not there yet."""

    def partitions(self, topic: str) -> int:
        """How many partitions a topic has. Raises MissingTopic; so do the three after it."""

    def starts(self, topic: str) -> dict[int, int]:
        """Low watermark of each partition."""

    def ends(self, topic: str) -> dict[int, int]:
        """High watermark of each partition: one past the newest record, committed or not."""

    def offsets_at(self, topic: str, time_ms: int) -> dict[int, int]:
        """First offset appended at or after a time, by partition; the end where there is none."""

    def delete_before(self, topic: str, offsets: Mapping[int, int]) -> None:
        """Move low watermarks up."""

    def retention_ms(self, topic: str) -> int | None:
        """How long a topic keeps its records; None: for ever. Raises LogError when it is not
        there."""

    def forget_group(self, group: str) -> None:
        """Drop what a group committed. Nothing to do where it never did; raises LogError while it
        has members."""

    def producer(self, *, transactional_id: str | None = None) -> Producer:
        """A new producer."""

    def consumer(self, *, group: str | None = None, committed_only: bool = False) -> Consumer:
        """A new consumer; ``committed_only`` hides open and aborted transactions."""

    def close(self) -> None:
        """Let go of admin connections. Producers and consumers are closed by their owners."""
