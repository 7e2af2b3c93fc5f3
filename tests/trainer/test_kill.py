"""The real process on a real broker, killed at every commit point, one after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
import signal
import time
from typing import Any

import msgspec
import pytest

from tailrace.weights.store import Store
from tailrace.weights.subscriber import Subscriber
from tailrace.weights.tensors import digest
from tailrace.wire import Wire
from tests.trainer.conftest import Mill
from tests.trainer.nursery import POINTS, Life, Nursery, settings_file
from tests.trainer.traffic import MODEL, trajectory

pytestmark = pytest.mark.kafka
TIMES = {"begun": 2}
"""A start begins a transaction too, to fence whoever was there before."""


@pytest.fixture
def file(kafka_mill: Mill, broker: Any, tmp_path: Path) -> Path:
    own = kafka_mill.settings
    assert own.model_dir is not None
    folders = {"model_dir": own.model_dir, "state_dir": own.state_dir}
    path = tmp_path / "settings.toml"
    return settings_file(path, kafka=broker.bootstrap, prefix=kafka_mill.prefix, **folders)


def killed(nursery: Nursery, file: Path, point: str) -> Life:
    """One that came there, and died of it."""
    life = nursery.start(file, point, TIMES.get(point, 1))
    assert nursery.ended(life) == -signal.SIGKILL, life.said()[-3000:]
    return life


def stopped(nursery: Nursery, life: Life) -> None:
    """In order, when it is told to."""
    life.kill(signal.SIGTERM)
    assert nursery.ended(life) == 0, life.said()[-3000:]


def drained(mill: Mill, settled: Callable[[], bool]) -> None:
    """Ask for what is left until it is so."""
    until = time.monotonic() + 60
    while not settled() and time.monotonic() < until:
        mill.drain()


def test_killed_at_every_commit_point_nothing_is_lost_or_trained_twice(
    kafka_mill: Mill, nursery: Nursery, file: Path, tmp_path: Path
) -> None:
    mill = kafka_mill
    mill.put(*(trajectory(n) for n in range(60)))
    mill.put(trajectory(3), trajectory(60, reward=None), trajectory(61, untrainable="seed"))
    for number, point in enumerate(POINTS):
        killed(nursery, file, point)
        mill.put(*(trajectory(n) for n in range(100 + 8 * number, 108 + 8 * number)))
    last = nursery.start(file)
    drained(mill, lambda: not mill.audit().trajectories.in_flight)
    stopped(nursery, last)

    report = mill.audit()
    assert report.ok, report.problems
    assert report.trajectories.in_flight == 0
    outcomes = report.trajectories.outcomes
    assert outcomes["trained"] >= 130 and outcomes["duplicate"] == 1
    assert sum(outcomes.values()) == 63 + 8 * len(POINTS)
    trained = Counter(i.trajectory_id for step in mill.steps() for i in step.inputs)
    assert max(trained.values()) == 1 and sum(trained.values()) == outcomes["trained"]
    assert not any(step.reseeded for step in mill.steps())

    # From nothing but the log and the model folder: the same bits.
    mill.settings = msgspec.structs.replace(mill.settings, state_dir=tmp_path / "empty")
    replayed = mill.trainer()
    assert replayed.recovery.reseeded is None
    assert replayed.recovery.replayed == len(mill.steps())
    assert digest(replayed._policy.published()) == replayed.head.digest
    subscriber = Subscriber(mill.log, Wire(), model=MODEL, prefix=mill.prefix)
    subscriber.catch_up()
    store = Store.empty()
    subscriber.advance(store)
    subscriber.close()
    assert store.digest == replayed.head.digest


def test_killed_at_every_commit_point_of_a_rollback_it_ends_in_the_same_state(
    kafka_mill: Mill, nursery: Nursery, file: Path
) -> None:
    mill = kafka_mill
    mill.put(*(trajectory(n) for n in range(24)))
    for _ in range(3):
        killed(nursery, file, "published")
    head = mill.versions()[-1].version
    mill.roll_back(1)
    mill.put(*(trajectory(n) for n in range(30, 46)))
    for point in ("encoded", "uncommitted", "committed", "taken"):
        killed(nursery, file, point)
    last = nursery.start(file)

    def settled() -> bool:
        return not mill.audit().trajectories.in_flight

    drained(mill, settled)
    first = next(u for u in mill.versions() if u.version > head)
    assert (first.base_version, first.digest) == (1, mill.versions()[1].digest)
    back = {r.subject_id for r in mill.receipts() if r.reason == "rolled_back"}
    assert {r.version for r in mill.receipts() if r.reason == "rolled_back"} == {first.version}
    assert back == {r.subject_id for r in mill.receipts() if 1 < (r.version or 0) <= head}
    report = mill.audit()
    assert report.ok, report.problems
    assert report.trajectories.outcomes == {"trained": 24, "filtered": 16}

    # And while it runs: the same process goes on from there.
    head = mill.versions()[-1].version
    mill.roll_back(1, "retrain")
    drained(mill, lambda: mill.versions()[-1].version > head and settled())
    stopped(nursery, last)
    report = mill.audit()
    assert report.ok, report.problems
    assert report.trajectories.outcomes == {"trained": 40}
    newest = mill.versions()[-1]
    assert [u for u in mill.versions() if u.version == head + 1][0].base_version == 1
    assert newest.version > head and not any(step.reseeded for step in mill.steps())
