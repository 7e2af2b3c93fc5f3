"""The real process in trouble that is not its own: it says so, and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
import resource
import shutil
import signal
import time
from typing import Any
import urllib.request

import pytest

from services.local.ports import free_port
from tests.trainer.conftest import Mill
from tests.trainer.nursery import Nursery, settings_file
from tests.trainer.traffic import trajectory

pytestmark = pytest.mark.kafka
WAIT_S = 60.0


class Scene:
    """One log, a settings file for its trainer, and what that trainer counts."""

    def __init__(self, mill: Mill, bootstrap: str, folder: Path) -> None:
        self.mill, self.port = mill, free_port()
        self.model = folder / "model"
        shutil.copytree(str(mill.settings.model_dir), self.model)
        self.file = settings_file(
            folder / "settings.toml",
            kafka=bootstrap,
            prefix=mill.prefix,
            model_dir=self.model,
            state_dir=mill.settings.state_dir,
            metrics_port=self.port,
            checkpoint_versions=1,
            compute="float32",
        )

    def count(self, name: str) -> float:
        """One of its metrics, as it shows them."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return next((float(line.split()[-1]) for line in lines if line.startswith(name)), 0.0)

    def trains(self, *numbers: int) -> None:
        """These trajectories, until a version was made of them."""
        before = len(self.mill.steps())
        self.mill.put(*(trajectory(n) for n in numbers))
        until(lambda: len(self.mill.steps()) > before)

    def settled(self) -> None:
        """Everything is decided once, and the head was reached from its own state."""
        until(lambda: not self.mill.audit().trajectories.in_flight, self.mill.drain)
        report = self.mill.audit()
        assert report.ok, report.problems
        assert not any(step.reseeded for step in self.mill.steps())


def until(true: Callable[[], bool], meanwhile: Callable[[], None] = lambda: None) -> None:
    end_s = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < end_s
        meanwhile()


@pytest.fixture
def scene(kafka_mill: Mill, broker: Any, tmp_path: Path) -> Iterator[Scene]:
    yield Scene(kafka_mill, broker.bootstrap, tmp_path)


def test_a_full_disk_costs_the_checkpoints_and_a_broken_one_is_passed_over(
    scene: Scene, nursery: Nursery
) -> None:
    failed = 'tailrace_trainer_checkpoint_failures_total{reason="%s"}'
    life = nursery.start(scene.file)
    until(lambda: bool(scene.mill.versions()))
    resource.prlimit(life.pid, resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
    scene.trains(*range(8))
    until(lambda: scene.count(failed % "full") == 1)
    scene.trains(*range(8, 16))
    until(lambda: scene.count(failed % "full") == 2)
    own = scene.mill.settings.own_dir
    until(lambda: not list(own.iterdir()))
    assert "checkpoint failed version=1 reason=full" in life.said()

    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.prlimit(life.pid, resource.RLIMIT_FSIZE, unlimited)
    scene.trains(*range(16, 24))
    until(lambda: bool(list(own.glob("v*"))))
    scene.trains(*range(24, 32))
    life.kill(signal.SIGTERM)
    assert nursery.ended(life) == 0, life.said()[-3000:]

    older, newest = sorted(own.glob("v*"))
    (newest / "seal").unlink()
    state = older / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-100])
    life = nursery.start(scene.file)
    scene.trains(*range(32, 40))
    assert scene.count(failed % "missing") == scene.count(failed % "state") == 1
    assert scene.count("tailrace_trainer_replayed_steps_total") == 4
    assert f"checkpoint broken path={newest.name} reason=missing" in life.said()
    scene.settled()
    life.kill(signal.SIGTERM)
    assert nursery.ended(life) == 0, life.said()[-3000:]


def test_a_broker_that_dies_under_a_transaction_is_waited_for_and_said(
    scene: Scene, nursery: Nursery, broker: Any
) -> None:
    life = nursery.start(scene.file, "uncommitted", 1, signal.SIGSTOP)
    scene.mill.put(*(trajectory(n) for n in range(8)))
    life.stopped()
    broker.kill()
    life.kill(signal.SIGCONT)
    until(lambda: "kafka client error=" in life.said())
    broker.start()
    broker.wait_ready()
    scene.trains(*range(8, 16))
    scene.settled()
    life.kill(signal.SIGTERM)
    assert nursery.ended(life) == 0, life.said()[-3000:]
    numbers = [update.version for update in scene.mill.versions()]
    assert numbers == list(range(len(numbers)))


@pytest.mark.soak
def test_a_broker_that_stays_away_ends_it_with_a_word_and_the_next_one_goes_on(
    scene: Scene, nursery: Nursery, broker: Any
) -> None:
    life = nursery.start(scene.file, "uncommitted", 1, signal.SIGSTOP)
    scene.mill.put(*(trajectory(n) for n in range(8)))
    life.stopped()
    broker.kill()
    try:
        life.kill(signal.SIGCONT)
        assert nursery.ended(life, 180.0) == 1, life.said()[-3000:]
        assert "ended error=" in life.said() and "Traceback" not in life.said()
    finally:
        broker.start()
        broker.wait_ready()
    life = nursery.start(scene.file)
    scene.trains(*range(8, 16))
    scene.settled()
    life.kill(signal.SIGTERM)
    assert nursery.ended(life) == 0, life.said()[-3000:]


def test_a_second_trainer_takes_over_and_the_first_ends_at_its_next_word(
    scene: Scene, nursery: Nursery
) -> None:
    first = nursery.start(scene.file, "encoded", 1, signal.SIGSTOP)
    scene.mill.put(*(trajectory(n) for n in range(8)))
    first.stopped()
    other = scene.file.with_name("other.toml")
    other.write_text(scene.file.read_text().replace(str(scene.port), str(free_port())))
    second = nursery.start(other)
    until(lambda: scene.mill.audit().head == 1)
    first.kill(signal.SIGCONT)
    assert nursery.ended(first) == 3, first.said()[-3000:]
    assert first.said().splitlines()[-1].startswith("trainer: another one took over: ")
    scene.mill.put(*(trajectory(n) for n in range(8, 16)))
    scene.settled()
    second.kill(signal.SIGTERM)
    assert nursery.ended(second) == 0, second.said()[-3000:]


def test_a_model_folder_that_is_gone_is_said_at_the_start_and_not_needed_after_it(
    scene: Scene, nursery: Nursery
) -> None:
    life = nursery.start(scene.file)
    scene.trains(*range(8))
    away = scene.model.rename(scene.model.with_name("away"))
    scene.mill.order("keyframe")
    scene.trains(*range(8, 16))
    until(lambda: any(u.kind == "keyframe" for u in scene.mill.versions()[1:]))
    life.kill(signal.SIGTERM)
    assert nursery.ended(life) == 0, life.said()[-3000:]

    life = nursery.start(scene.file)
    assert nursery.ended(life) == 2
    said = f"trainer: trainer.model_dir: a model folder is required, not {scene.model}"
    assert life.said().splitlines()[-1] == said
    away.rename(scene.model)
    life = nursery.start(scene.file)
    scene.trains(*range(16, 24))
    scene.settled()
    life.kill(signal.SIGTERM)
    assert nursery.ended(life) == 0, life.said()[-3000:]
