"""The real rewards worker on the live prefix and on two replays of it: the same trajectories."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
import time
from typing import Any

import pytest

from tailrace.log.base import Log, LogRecord
from tailrace.replaying.plan import begin, copy_schemas
from tailrace.replaying.replayer import Replayer
from tailrace.replaying.stretch import planned
from tests.rewards.worker import Bench, Worker

TURNS = 6


@contextmanager
def working(folder: Path, bootstrap: str, prefix: str, *, replay: bool) -> Iterator[Worker]:
    folder.mkdir()
    worker = Worker(folder, bootstrap, prefix)
    if replay:
        with (folder / "settings.toml").open("a") as file:
            file.write("replay = true\n")
    worker.start()
    try:
        yield worker
        assert worker.stop() == 0
    finally:
        worker.kill()


def first(log: Log, topic: str, number: int) -> list[LogRecord]:
    """So many records of a topic, as they come."""
    consumer = log.consumer()
    consumer.assign({(topic, partition): 0 for partition in log.starts(topic)})
    found: list[LogRecord] = []
    until = time.monotonic() + 60
    while len(found) < number and time.monotonic() < until:
        found += consumer.poll(0.5)
    consumer.close()
    return sorted(found, key=lambda record: (record.partition, record.value or b""))


@pytest.mark.kafka
def test_two_replays_and_the_live_system_have_the_same_trajectories(
    broker: Any, prefix: str, tmp_path: Path
) -> None:
    bench = Bench(broker.bootstrap, prefix)
    with working(tmp_path / "live", broker.bootstrap, prefix, replay=False):
        for number in range(TURNS):
            bench.turn(f"default:s{number}", ("a", number % 2 == 0))
        bench.producer.flush()
        live = first(bench.log, f"{prefix}trajectories", TURNS)
    assert len(live) == TURNS
    names = [f"{prefix}one.", f"{prefix}two."]
    plan = planned(bench.log, prefix, now_ms=2**41)
    for name in names:
        begin(bench.log, name, plan)
        copy_schemas(bench.log, prefix, name)
        Replayer(bench.log, plan, name).run()
    bootstrap = broker.bootstrap
    with (
        working(tmp_path / "one", bootstrap, names[0], replay=True),
        working(tmp_path / "two", bootstrap, names[1], replay=True),
    ):
        one, two = (first(bench.log, f"{name}trajectories", TURNS) for name in names)
    said = [[(r.partition, r.key, r.value) for r in records] for records in (live, one, two)]
    assert said[0] == said[1] == said[2]
    for name in names:  # nobody but the replay wrote a tick
        assert all(
            "tailrace-source" in r.headers
            for r in first(bench.log, f"{name}ticks", sum(bench.log.ends(f"{name}ticks").values()))
        )
