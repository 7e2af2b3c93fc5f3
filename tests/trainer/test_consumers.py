"""What several processes read as if one did. Two threads stand for two processes here; what these
say to each other by gloo is in :mod:`tests.trainer.test_ranks`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from queue import Queue
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
import pytest

from services.trainer.consumers import TOLD, LeadConsumer, Part
from tailrace import topics
from tailrace.errors import LogError
from tailrace.log.base import LogRecord
from tailrace.log.memory import MemoryConsumer, MemoryLog

NAME = topics.TRAJECTORIES.name


class Two:
    """One of two that talk as :class:`services.trainer.ranks.Ranks` do."""

    def __init__(self, number: int, said: Queue[Any], handed: tuple[Queue[Any], Queue[Any]]):
        self.number, self._said, self._handed = number, said, handed

    def own(self, partitions: Iterable[int]) -> list[int]:
        return [p for p in partitions if p % 2 == self.number]

    def tell(self, what: str, *given: Any) -> None:
        self._said.put((what, *given))

    def heard(self) -> tuple[Any, ...]:
        said: tuple[Any, ...] = self._said.get(timeout=10)
        return said

    def gather(self, mine: list[Any]) -> list[Any]:
        self._handed[self.number].put(mine)
        theirs = self._handed[1 - self.number].get(timeout=10)
        return [*mine, *theirs] if self.number == 0 else [*theirs, *mine]


class Failing(MemoryLog):
    """Whose consumers cannot read one partition."""

    def __init__(self, failing: int | None = None) -> None:
        super().__init__(lambda: 0)
        self._failing = failing
        self.create(topics.TOPICS, session_partitions=4)

    def consumer(self, **same: Any) -> MemoryConsumer:
        failing = self._failing

        class Consumer(MemoryConsumer):
            def poll(self, timeout_s: float, max_records: int = 500) -> list[LogRecord]:
                if (NAME, failing) in self._positions:
                    raise LogError(f"no leader of partition {failing}")
                return super().poll(timeout_s, max_records)

        return Consumer(self, None, False)


@contextmanager
def reading(log: MemoryLog) -> Iterator[LeadConsumer]:
    """The consumer of the first, while the second does as it is told."""
    said: Queue[Any] = Queue()
    handed: tuple[Queue[Any], Queue[Any]] = (Queue(), Queue())
    first, second = (Two(number, said, handed) for number in range(2))

    def follow() -> None:
        assert second.heard() == ("consumer",)
        part = Part(log.consumer(), second)  # type: ignore[arg-type]
        while (heard := second.heard())[0] in TOLD:
            part.told(*heard)
        assert heard == ("end",)
        part.close()

    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(follow)
        made = LeadConsumer(log, first)  # type: ignore[arg-type]
        try:
            yield made
        finally:
            made.close()
            first.tell("end")
            following.result(10)


@given(
    places=st.lists(st.integers(0, 3), max_size=30),
    begin=st.lists(st.integers(0, 3), min_size=4, max_size=4),
    most=st.integers(1, 7),
)
def test_each_record_comes_once_in_the_order_of_its_partition(
    places: list[int], begin: list[int], most: int
) -> None:
    log = Failing()
    producer = log.producer()
    for number, partition in enumerate(places):
        producer.append(NAME, b"%d" % number, partition=partition)
    ends = log.ends(NAME)
    starts = {p: min(begin[p], ends[p]) for p in range(4)}
    found: list[LogRecord] = []
    with reading(log) as consumer:
        consumer.assign({(NAME, p): start for p, start in starts.items()})
        assert {p: consumer.position(NAME, p) for p in range(4)} == starts
        while records := consumer.poll(0.0, most):
            assert len(records) <= 2 * most
            found += records
        assert {p: consumer.position(NAME, p) for p in range(4)} == ends
    for partition in range(4):
        mine = [r.offset for r in found if r.partition == partition]
        assert mine == list(range(starts[partition], ends[partition]))


@pytest.mark.parametrize("failing", range(4))
def test_a_partition_that_cannot_be_read_is_said_and_nobody_waits(failing: int) -> None:
    log = Failing(failing)
    log.producer().append(NAME, b"", partition=0)
    with reading(log) as consumer:
        consumer.assign({(NAME, p): 0 for p in range(4)})
        for _ in range(2):
            with pytest.raises(LogError, match=f"no leader of partition {failing}"):
                consumer.poll(0.0)
        consumer.assign({(NAME, p): 0 for p in range(4) if p != failing})
        assert len(consumer.poll(0.0)) == (failing != 0)
