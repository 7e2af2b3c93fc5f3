"""What several processes read as if one did: each its own partitions, the first one hears of all.

    first    assign  ──told──>  each process   its own partitions of them        (Part)
             poll    ──told──>  each process   polls those
             records, positions  <──gathered── whole, the first one's first      (LeadConsumer)

Records of a session are in one partition, so a group comes whole from one process. In order within
each partition, as from any consumer. What becomes of a record the first process decides; it hears
of a log that one of them cannot read when all have polled, so that nobody waits for another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from tailrace.errors import LogError
from tailrace.log.base import Consumer, Log, LogRecord

if TYPE_CHECKING:
    from services.trainer.ranks import Ranks

Places = dict[tuple[str, int], int]
"""Offsets by topic and partition."""
TOLD = ("assign", "poll")


class Polled(msgspec.Struct, frozen=True):
    """What one process found."""

    records: list[LogRecord]
    positions: Places
    """Of each of its partitions, the offset that is read next."""
    failed: str | None = None
    """Why the log could not be read."""


class Part:
    """The partitions of this process."""

    def __init__(self, consumer: Consumer, ranks: Ranks) -> None:
        self._consumer, self._ranks = consumer, ranks
        self._places: list[tuple[str, int]] = []

    def assign(self, positions: Mapping[tuple[str, int], int]) -> None:
        """Take its own of these."""
        own = set(self._ranks.own(partition for _, partition in positions))
        mine = {place: offset for place, offset in positions.items() if place[1] in own}
        self._places = list(mine)
        self._consumer.assign(mine)

    def poll(self, timeout_s: float, max_records: int) -> Polled:
        """What is there."""
        try:
            records = self._consumer.poll(timeout_s, max_records)
        except LogError as error:
            return Polled([], {}, str(error))
        return Polled(records, {at: self._consumer.position(*at) for at in self._places})

    def close(self) -> None:
        """Let go."""
        self._consumer.close()

    def told(self, what: str, *given: Any) -> None:
        """One of :data:`TOLD`, which the first process does meanwhile."""
        if what == "assign":
            self.assign(*given)
        else:
            self._ranks.gather([self.poll(*given)])


class LeadConsumer:
    """All parts together, for the first process."""

    def __init__(self, log: Log, ranks: Ranks) -> None:
        ranks.tell("consumer")
        self._ranks, self._part = ranks, Part(log.consumer(), ranks)
        self._positions: Places = {}

    def assign(self, positions: Mapping[tuple[str, int], int]) -> None:
        """As :class:`tailrace.log.base.Consumer`."""
        self._positions = dict(positions)
        self._ranks.tell("assign", self._positions)
        self._part.assign(self._positions)

    def poll(self, timeout_s: float, max_records: int = 500) -> list[LogRecord]:
        """As :class:`tailrace.log.base.Consumer`; so many of each process. Raises LogError where
        one of them cannot read: then nothing of this poll is to be used, assign again."""
        self._ranks.tell("poll", timeout_s, max_records)
        found = self._ranks.gather([self._part.poll(timeout_s, max_records)])
        failed = next((each.failed for each in found if each.failed is not None), None)
        if failed is not None:
            raise LogError(failed)
        for each in found:
            self._positions |= each.positions
        return [record for each in found for record in each.records]

    def position(self, topic: str, partition: int) -> int:
        """As :class:`tailrace.log.base.Consumer`."""
        return self._positions[topic, partition]

    def close(self) -> None:
        """Let go of its own part. The others are not told: where this is an end by an error, they
        may be within a step and would not hear. They close theirs at the next consumer or the end.
        """
        self._part.close()


def together(ranks: Ranks) -> Callable[[Log], LeadConsumer]:
    """What makes the consumer of the first process."""
    return lambda log: LeadConsumer(log, ranks)
