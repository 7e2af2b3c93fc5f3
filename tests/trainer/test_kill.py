"""The real process on a real broker, killed at every commit point, one after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
import os
from pathlib import Path
import signal
import subprocess
import sys
import time
from typing import Any

import msgspec
import pytest

from tailrace.log.kafka import KafkaLog
from tailrace.weights.store import Store
from tailrace.weights.subscriber import Subscriber
from tailrace.weights.tensors import digest
from tailrace.wire import Wire
from tests.trainer.conftest import Clock, Mill
from tests.trainer.traffic import MODEL, trajectory

pytestmark = pytest.mark.kafka
POINTS = (
    "taken",
    "stepped",
    "encoded",
    "uncommitted",
    "committed",
    "published",
    "checkpoint_begun",
    "checkpoint_written",
    "checkpoint_visible",
)
HORIZON_S = 1e9
"""The trajectories' times are fixed, the broker's clock is not."""


@pytest.fixture
def kafka_mill(broker: Any, prefix: str, tiny_model: Path, tmp_path: Path) -> Iterator[Mill]:
    log = KafkaLog(broker.bootstrap)
    made = Mill(log, tiny_model, tmp_path / "state", clock=Clock(), prefix=prefix)
    made.settings = msgspec.structs.replace(made.settings, horizon_s=HORIZON_S)
    yield made
    made.close()
    log.close()


def settings_file(mill: Mill, bootstrap: str, path: Path) -> Path:
    path.write_text(
        f"""
kafka = "{bootstrap}"
prefix = "{mill.prefix}"
model = "{MODEL}"
state_dir = "{mill.settings.state_dir}"
[trainer]
model_dir = "{mill.settings.model_dir}"
batch_answers = 8
batch_wait_s = 1.0
min_answers = 4
micro_answers = 4
lr = 1e-3
account_s = 1.0
checkpoint_versions = 2
horizon_s = {HORIZON_S}
max_age_versions = 1000
"""
    )
    return path


class Nursery:
    """Runs one real trainer after the other: see :mod:`tests.trainer.nursery`."""

    def __init__(self, mill: Mill, file: Path, log: Path, *points: str) -> None:
        self.log = log
        program = [sys.executable, "-m", "tests.trainer.nursery", str(file)]
        program += [str(mill.settings.model_dir), *points, "run"]
        with log.open("w") as errors:
            self.child = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=errors, text=True)

    def begun(self, point: str) -> int:
        assert self.child.stdout is not None
        name, pid = self.child.stdout.readline().split()
        assert name == point, self.log.read_text()[-3000:]
        return int(pid)

    def killed(self, point: str) -> int:
        """It came there, and died of it."""
        pid = self.begun(point)
        assert self.child.stdout is not None
        name, status = self.child.stdout.readline().split()
        assert name == point and os.WIFSIGNALED(int(status)), self.log.read_text()[-3000:]
        assert os.WTERMSIG(int(status)) == signal.SIGKILL, self.log.read_text()[-3000:]
        return pid

    def ended(self, last: int) -> None:
        """In order, when it is told to."""
        os.kill(last, signal.SIGTERM)
        assert self.child.stdout is not None
        assert self.child.stdout.readline().split() == ["run", "0"], self.log.read_text()[-3000:]
        self.child.wait()
        self.child.stdout.close()


def test_killed_at_every_commit_point_nothing_is_lost_or_trained_twice(
    kafka_mill: Mill, broker: Any, tmp_path: Path
) -> None:
    mill = kafka_mill
    mill.put(*(trajectory(n) for n in range(60)))
    mill.put(trajectory(3), trajectory(60, reward=None), trajectory(61, untrainable="seed"))
    file = settings_file(mill, broker.bootstrap, tmp_path / "settings.toml")
    nursery = Nursery(mill, file, tmp_path / "log", *POINTS)
    for point in POINTS:
        pid = nursery.killed(point)
        mill.put(*(trajectory(n) for n in range(100 + 8 * pid, 108 + 8 * pid)))
    last = nursery.begun("run")
    until = time.monotonic() + 60
    while mill.audit().trajectories.in_flight and time.monotonic() < until:
        mill.drain()
    nursery.ended(last)

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
    kafka_mill: Mill, broker: Any, tmp_path: Path
) -> None:
    mill = kafka_mill
    mill.put(*(trajectory(n) for n in range(24)))
    file = settings_file(mill, broker.bootstrap, tmp_path / "settings.toml")
    points = ("encoded", "uncommitted", "committed", "taken")
    nursery = Nursery(mill, file, tmp_path / "log", *["published"] * 3, *points)
    for _ in range(3):
        nursery.killed("published")
    head = mill.versions()[-1].version
    mill.roll_back(1)
    mill.put(*(trajectory(n) for n in range(30, 46)))
    for point in points:
        nursery.killed(point)
    last = nursery.begun("run")

    def settled() -> bool:
        return not mill.audit().trajectories.in_flight

    until = time.monotonic() + 60
    while not settled() and time.monotonic() < until:
        mill.drain()
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
    until = time.monotonic() + 60
    while mill.versions()[-1].version == head and time.monotonic() < until:
        mill.drain()
    while not settled() and time.monotonic() < until:
        mill.drain()
    nursery.ended(last)
    report = mill.audit()
    assert report.ok, report.problems
    assert report.trajectories.outcomes == {"trained": 40}
    newest = mill.versions()[-1]
    assert [u for u in mill.versions() if u.version == head + 1][0].base_version == 1
    assert newest.version > head and not any(step.reseeded for step in mill.steps())
