"""Reading to an end waits as long as a broker keeps what a killed producer left open, no longer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tailrace import topics
from tailrace.ends import STALL_S, to_ends
from tailrace.errors import LogError
from tailrace.log.base import LogRecord
from tailrace.log.memory import MemoryConsumer, MemoryLog, MemoryProducer

NAME = topics.MODEL_UPDATES.name
KEY = (NAME, 0)


class Silent(MemoryConsumer):
    """Its polls take ``poll_s`` on the test's clock, and no time."""

    now_s = 0.0
    poll_s = 1.0
    polls = 0

    def poll(self, timeout_s: float, max_records: int = 500) -> list[LogRecord]:
        self.now_s += self.poll_s
        self.polls += 1
        return super().poll(0.0, max_records)


def _open() -> tuple[MemoryLog, MemoryProducer, Silent]:
    """A record, and one in a transaction whose producer is gone."""
    log = MemoryLog()
    log.create([topics.MODEL_UPDATES])
    log.producer().append(NAME, b"there")
    dead = log.producer(transactional_id="dead")
    dead.begin()
    dead.append(NAME, b"open")
    consumer = Silent(log, None, True)
    consumer.assign({KEY: 0})
    return log, dead, consumer


def _values(found: Iterator[list[LogRecord]]) -> Iterator[bytes | None]:
    return (record.value for records in found for record in records)


def test_what_a_killed_producer_left_open_is_waited_for() -> None:
    log, dead, consumer = _open()
    found = []
    for records in to_ends(consumer, {KEY: log.ends(NAME)[0]}, clock=lambda: consumer.now_s):
        found += [record.value for record in records]
        if consumer.now_s > 60 and dead._open is not None:
            dead.abort()  # as the broker does
    assert found == [b"there"] and consumer.now_s <= 63


@pytest.mark.parametrize("poll_s", [0.25, 1.0, 10.0])
def test_it_is_time_that_counts_and_not_polls(poll_s: float) -> None:
    log, _, consumer = _open()
    consumer.poll_s = poll_s
    with pytest.raises(LogError, match="model-updates/0/1 does not reach its end, 2"):
        list(to_ends(consumer, {KEY: log.ends(NAME)[0]}, clock=lambda: consumer.now_s))
    assert STALL_S < consumer.now_s <= STALL_S + 2 * poll_s


def test_what_the_caller_takes_does_not_count() -> None:
    log, dead, consumer = _open()
    found = to_ends(consumer, {KEY: log.ends(NAME)[0]}, clock=lambda: consumer.now_s)
    for number, _ in enumerate(found):
        consumer.now_s += 1000
        if number == 5:
            dead.commit()
    assert consumer.polls == 7


def test_at_the_end_nothing_is_asked() -> None:
    log, _, consumer = _open()
    assert list(_values(to_ends(consumer, {KEY: 0}))) == [] and not consumer.polls
    assert list(_values(to_ends(consumer, {KEY: 1}))) == [b"there"] and consumer.polls == 1
