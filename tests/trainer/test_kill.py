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


def test_killed_at_every_commit_point_nothing_is_lost_or_trained_twice(
    kafka_mill: Mill, broker: Any, tmp_path: Path
) -> None:
    mill = kafka_mill
    mill.put(*(trajectory(n) for n in range(60)))
    mill.put(trajectory(3), trajectory(60, reward=None), trajectory(61, untrainable="seed"))
    file = settings_file(mill, broker.bootstrap, tmp_path / "settings.toml")
    model = mill.settings.model_dir
    errors = (tmp_path / "log").open("w")
    nursery = subprocess.Popen(
        [sys.executable, "-m", "tests.trainer.nursery", str(file), str(model), *POINTS, "run"],
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
    )
    errors.close()
    assert nursery.stdout is not None
    for point in POINTS:
        pid = nursery.stdout.readline().split()
        status = nursery.stdout.readline().split()
        assert pid[0] == status[0] == point, (tmp_path / "log").read_text()[-3000:]
        assert os.WTERMSIG(int(status[1])) == signal.SIGKILL, (tmp_path / "log").read_text()[-3000:]
        mill.put(*(trajectory(n) for n in range(100 + 8 * int(pid[1]), 108 + 8 * int(pid[1]))))
    last = int(nursery.stdout.readline().split()[1])
    until = time.monotonic() + 60
    while mill.audit().trajectories.in_flight and time.monotonic() < until:
        mill.drain()
    os.kill(last, signal.SIGTERM)
    assert nursery.stdout.readline().split() == ["run", "0"]
    nursery.wait()
    nursery.stdout.close()

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
