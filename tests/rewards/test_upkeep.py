"""The worker's upkeep on a log in memory: a partition that waits must not stop the others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
import threading
import time

import msgspec
from prometheus_client import CollectorRegistry
import pytest

from services.rewards.join import Join
from services.rewards.metrics import Metrics
from services.rewards.offsets import Offsets
from services.rewards.settings import Settings
from services.rewards.spec import Spec
from services.rewards.stall import Stalled
from services.rewards.ticks import INPUTS
from services.rewards.upkeep import Upkeep
from tailrace import events, topics
from tailrace.errors import LogError
from tailrace.log.base import LogRecord
from tailrace.log.memory import MemoryLog
from tests.rewards.history import _Table

SETTINGS = Settings(tick_s=0.01, idle_tick_s=0.0)


class Scene:
    """Two partitions; a tick on partition 0 waits for ends that are given."""

    def __init__(self, ends: dict[str, int], stall_s: float = 30.0) -> None:
        self.log = MemoryLog()
        self.log.create(topics.TOPICS, session_partitions=2)
        self.offsets = Offsets(self.log, "g", "")
        self.joins = {p: Join(Spec(), p, 2, _Table({})) for p in (0, 1)}
        self.written = {0: 0, 1: 0}
        self.registry = CollectorRegistry()
        self.underway: str | None = None
        self.upkeep = Upkeep(
            *(msgspec.structs.replace(SETTINGS, stall_s=stall_s), self.offsets),
            *(Metrics(self.registry), lambda: self.joins, self._write, lambda: self.underway),
        )
        tick = events.Tick(partition=0, event_time_ms=1, ends={"prompts": 0, "outputs": 0} | ends)
        record = LogRecord(
            topic="ticks", partition=0, offset=0, time_ms=0, key=None, value=b"", headers={}
        )
        self.joins[0].on_record(record, "ticks", tick)

    async def _write(self, tick: events.Tick) -> tuple[int, int]:
        self.written[tick.partition] += 1
        return self.written[tick.partition] - 1, 1

    def run_until(self, what: Callable[[], bool]) -> None:
        async def run() -> None:
            running = asyncio.ensure_future(self.upkeep.run())
            until = time.monotonic() + 10
            while not what() and not running.done():
                assert time.monotonic() < until, "it did not come to that"
                await asyncio.sleep(0.005)
            running.cancel()
            await asyncio.wait([running])
            if not running.cancelled():
                running.result()

        asyncio.run(run())


def test_a_tick_beyond_the_real_end_is_said_and_the_others_tick_on() -> None:
    scene = Scene({"feedback": 7})
    scene.run_until(lambda: scene.upkeep.blocked() is not None)
    assert scene.upkeep.blocked() == "a tick on partition 0 waits for feedback 7: it ends at 0"
    assert scene.registry.get_sample_value("tailrace_rewards_blocked_partitions") == 1
    before = scene.written[1]
    scene.run_until(lambda: scene.written[1] > before + 5)
    producer = scene.log.producer()
    for _ in range(7):
        producer.append("feedback", b"", key=b"k", partition=0)
    scene.run_until(lambda: scene.upkeep.blocked() is None)
    assert scene.registry.get_sample_value("tailrace_rewards_blocked_partitions") == 0


def test_what_went_to_another_worker_is_none_of_this_one_s_gauges() -> None:
    scene = Scene({})
    scene.joins[0].counts["prompts", "evicted"] = 3
    scene.joins[1].counts["prompts", "evicted"] = 2
    labels = {"topic": "prompts", "reason": "evicted"}

    def shows(number: int) -> bool:
        name = "tailrace_rewards_passed_over_records"
        return scene.registry.get_sample_value(name, labels) == number

    scene.run_until(lambda: shows(5))
    del scene.joins[0]
    scene.run_until(lambda: shows(2))
    scene.joins.clear()
    scene.run_until(lambda: shows(0))


def test_a_gap_is_looked_into_beside_the_ticks() -> None:
    scene = Scene({"feedback": 7})
    never = threading.Event()

    def gap_end(kind: str, partition: int, start: int, end: int) -> int:
        wanted = scene.written[1] + 5
        until = time.monotonic() + 5
        while scene.written[1] < wanted and time.monotonic() < until:
            never.wait(0.005)
        return end if scene.written[1] >= wanted else start

    scene.offsets.gap_end = gap_end  # type: ignore[method-assign]
    scene.offsets.ends = lambda: {p: dict.fromkeys(INPUTS, 7) for p in (0, 1)}  # type: ignore
    scene.run_until(lambda: scene.upkeep.take_gap(0) == ("feedback", 0, 7))


def test_an_assignment_may_stand_still_only_while_the_brokers_do_not_answer() -> None:
    scene = Scene({}, stall_s=0.2)
    scene.joins.clear()
    scene.underway = "rebalance 1"
    answers = scene.offsets.committed
    asked: list[float] = []

    def away(partitions: Iterable[int]) -> dict[int, dict[str, int]]:
        asked.append(time.monotonic())
        raise LogError("no broker")

    scene.offsets.committed = away  # type: ignore[method-assign]
    scene.run_until(lambda: len(asked) > 1 and asked[-1] - asked[0] > 1.0)
    assert scene.registry.get_sample_value("tailrace_rewards_probe_failures_total") == len(asked)
    scene.offsets.committed = answers  # type: ignore[method-assign]
    started = time.monotonic()
    with pytest.raises(Stalled, match="the assignment has stayed at rebalance 1"):
        scene.run_until(lambda: False)
    assert time.monotonic() - started >= 0.4


def test_an_assignment_that_moves_or_is_over_is_none_that_stands_still() -> None:
    scene = Scene({}, stall_s=0.2)
    scene.joins.clear()
    began = time.monotonic()

    def over() -> bool:
        passed_s = time.monotonic() - began
        scene.underway = f"values left {100 - int(passed_s * 5)}" if passed_s < 1 else None
        return passed_s > 2

    scene.run_until(over)
