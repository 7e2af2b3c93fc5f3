"""The join over logs that are there already, in one go: no fault, no restart, nothing committed.

In: what lies on the four topics of a partition. Out: what a worker sends that reads it. The join's
result does not depend on the order between topics, so inputs are read as far as each tick wants
them. Called by :mod:`services.rewards.trial`, and by whoever wants to know what a log should have
come to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from services.rewards.emission import Out
from services.rewards.join import Join
from services.rewards.spec import Spec
from services.rewards.ticks import INPUTS
from tailrace import events
from tailrace.errors import InvalidRecord
from tailrace.log.base import LogRecord

Read = tuple[LogRecord, events.Struct | InvalidRecord]
"""A record, and what it says or why it cannot be read."""


def run(
    spec: Spec, partition: int, partitions: int, logs: Mapping[str, Iterable[Read]]
) -> Iterator[Out]:
    """What one worker sends that reads a partition from the first record of each log to the last.

    ``logs``: by the topic's bare name, in offset order; a log may begin anywhere.
    """
    join = Join(spec, partition, partitions, _Store())
    feeds = [_Feed(join, kind, logs.get(kind, ())) for kind in INPUTS]
    for record, tick in logs.get("ticks", ()):
        if isinstance(tick, events.Tick):
            for feed in feeds:
                yield from feed.to(tick.ends.get(feed.kind, 0))
        yield from _taken(join, "ticks", record, tick)
        join.on_committed(join.positions)
    for feed in feeds:
        yield from feed.to(None)


class _Store(dict[bytes, bytes]):
    def insert(self, key: bytes, value: bytes) -> None:
        self[key] = value

    def delete(self, key: bytes) -> None:
        del self[key]


class _Feed:
    """One topic, read on demand."""

    def __init__(self, join: Join, kind: str, reads: Iterable[Read]) -> None:
        self.kind = kind
        self._join = join
        self._reads = iter(reads)
        self._next = next(self._reads, None)

    def to(self, end: int | None) -> Iterator[Out]:
        """Read what lies below an offset, if only that there is nothing; None: all."""
        while self._next is not None and (end is None or self._next[0].offset < end):
            yield from _taken(self._join, self.kind, *self._next)
            self._next = next(self._reads, None)
        at = self._join.positions[self.kind]
        if end is not None and at < end:
            yield from self._join.on_gap(self.kind, at, end)


def _taken(
    join: Join, kind: str, record: LogRecord, event: events.Struct | InvalidRecord
) -> Iterator[Out]:
    yield from join.on_gap(kind, join.positions[kind], record.offset)
    if isinstance(event, InvalidRecord):
        yield from join.on_refused(record, kind, event)
    else:
        yield from join.on_record(record, kind, event)
