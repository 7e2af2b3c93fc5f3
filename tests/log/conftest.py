"""A room: topics of one test on the log under test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tailrace.log.base import Log


class Room:
    """Topics of one test on one log, and short ways to write and read them."""

    def __init__(self, log: Log, prefix: str) -> None:
        from tailrace import topics

        self.log = log
        self.prefix = prefix
        self.topic = topics.named(topics.OUTPUTS, prefix)
        self.steps = topics.named(topics.STEPS, prefix)
        self.log.create([topics.OUTPUTS, topics.STEPS], prefix=prefix, session_partitions=3)
        self._open: list = []

    def producer(self, transactional_id: str | None = None):
        producer = self.log.producer(
            transactional_id=transactional_id and self.prefix + transactional_id
        )
        self._open.append(producer)
        return producer

    def consumer(self, positions: dict[tuple[str, int], int] | None = None, **options):
        consumer = self.log.consumer(**options)
        self._open.append(consumer)
        if positions is not None:
            consumer.assign(positions)
        return consumer

    def fill(self, count: int, partition: int = 0) -> None:
        producer = self.producer()
        for number in range(count):
            producer.append(self.topic, b"%d" % number, partition=partition)
        producer.flush()

    def values(self, topic: str | None = None, **options) -> list[bytes | None]:
        from tailrace.stream import read_all

        return [r.value for r in read_all(self.log, topic or self.topic, **options)]

    def close(self) -> None:
        for part in self._open:
            part.close()


@pytest.fixture
def room(log: Log, prefix: str) -> Iterator[Room]:
    """Fresh topics on the log under test."""
    made = Room(log, prefix)
    yield made
    made.close()


def drain(consumer, count: int, tries: int = 40):
    """The next ``count`` records, and no more than come with them."""
    records: list = []
    while len(records) < count and tries:
        records += consumer.poll(0.5)
        tries -= 1
    return records
