"""Two processes under torchrun train to the weights of one, each reading its own partitions."""

from __future__ import annotations

from collections.abc import Iterator
import itertools
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import time
from typing import Any
import uuid

import pytest

from services.trainer import ranks
from services.trainer.checkpoint import Checkpoints
from services.trainer.learner import Learner
from services.trainer.policy import Policy
from services.trainer.trainer import Trainer
from tailrace import ids, topics
from tailrace.events import Receipt, Trajectory
from tailrace.log.kafka import KafkaLog
from tailrace.log.memory import MemoryLog
from tailrace.stream import read_all
from tailrace.topics import named
from tailrace.weights import folder
from tailrace.weights.tensors import digest
from tests.trainer import mates
from tests.trainer.conftest import Clock, Mill
from tests.trainer.nursery import HORIZON_S, settings_file
from tests.trainer.traffic import TIME_MS, trajectory

ROOT = Path(__file__).parents[2]
TOLERANCE = 1e-4
"""Of how far the weights moved: sums in another order, which AdamW's division by a root makes
larger where a gradient is nearly nothing."""
WAIT_S = 120.0
BATCHES = 3
SAME: dict[str, Any] = {"compute": "float32", "micro_answers": 3, "batch_wait_s": 1000.0}
"""Settings of the trainer, as two processes and as one. Only a whole batch is trained."""


class Agent:
    """The agent of torchrun, with the log that its trainer is to read."""

    def __init__(self, model: Path, out: Path, bootstrap: str) -> None:
        self.out = out
        log = KafkaLog(bootstrap)
        prefix = f"t{uuid.uuid4().hex[:10]}."
        self.mill = Mill(log, model, out / "state", clock=Clock(), prefix=prefix)
        where: dict[str, Any] = {"model_dir": model, "state_dir": out / "state"}
        settings = settings_file(
            out / "settings.toml", kafka=bootstrap, prefix=prefix, **where, **SAME
        )
        self._errors = out / "agent.log"
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.trainer.mates", model, out, settings],
                cwd=ROOT,
                env=os.environ
                | {"PYTHONPATH": f"{ROOT}:{ROOT / 'shared'}", "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        self._news = log.consumer(committed_only=True)
        self._news.assign({(named(topics.MODEL_UPDATES, prefix), 0): 0})

    def together(self) -> None:
        """Until both have left what they did without a service."""
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"together\n", self.said()

    def until(self, version: int) -> None:
        """Until the trainer has published it."""
        until_s = time.monotonic() + WAIT_S
        seen = [update.version for update in self.mill.versions()]
        while version not in seen:
            assert time.monotonic() < until_s and self._process.poll() is None, self.said()
            if self._news.poll(0.5):
                seen = [update.version for update in self.mill.versions()]

    def kill(self, number: int) -> None:
        """One of the two processes, as if it had never been asked."""
        os.kill(int((self.out / f"pid-{number}").read_text()), signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM to the agent, which hands it on."""
        self._process.terminate()
        assert self._process.wait(WAIT_S) == 0, self.said()

    def said(self) -> str:
        return self._errors.read_text()[-6000:]

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._news.close()
        self.mill.close()
        self.mill.log.close()


@pytest.fixture(scope="module")
def agent(
    tiny_model: Path, broker: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Agent]:
    made = Agent(tiny_model, tmp_path_factory.mktemp("both"), broker.bootstrap)
    yield made
    made.close()


@pytest.fixture(scope="module")
def both(agent: Agent) -> Path:
    """What two processes left."""
    agent.together()
    return agent.out


@pytest.fixture(scope="module")
def trainer(agent: Agent, both: Path) -> Mill:
    """After three versions of two processes, of which one was killed after the first."""
    agent.mill.put(*batch(0))
    agent.until(1)
    agent.kill(1)
    for number in range(1, BATCHES):
        agent.mill.put(*batch(number))
        agent.until(number + 1)
    agent.stop()
    return agent.mill


@pytest.fixture(scope="module")
def alone(tiny_model: Path) -> tuple[Learner, dict[str, Any]]:
    """The same steps in one process, their inputs in the order of the processes."""
    learner = Learner(Policy(tiny_model, compute="float32"), mates.SETTINGS)
    figures: dict[str, float] = {}
    one, other = mates.arrived([0, 2]), mates.arrived([1, 3])
    for step in range(mates.STEPS):
        given = one[step] + other[step]
        figures = learner.step(given, lr=mates.SETTINGS.lr, objective="cispo")
    return learner, figures


@pytest.fixture(scope="module")
def single(
    trainer: Mill, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Mill, Trainer]]:
    """A trainer of one process, to whom the same records came one batch after the other."""
    topic = named(topics.TRAJECTORIES, trainer.prefix)
    found = sorted(read_all(trainer.log, topic), key=lambda r: (r.time_ms, r.partition, r.offset))
    came = iter(found)
    log = MemoryLog(lambda: now_ms)
    now_ms = TIME_MS
    mill = Mill(log, tiny_model, tmp_path_factory.mktemp("one"), clock=Clock())
    one = mill.trainer(**SAME, horizon_s=HORIZON_S)
    producer = log.producer()
    for _ in range(BATCHES):
        for record in itertools.islice(came, 8):
            now_ms = record.time_ms
            producer.append(
                topics.TRAJECTORIES.name,
                record.value,
                key=record.key,
                partition=record.partition,
                headers=record.headers,
            )
        assert one.turn(0.0)
    yield mill, one
    mill.close()


def test_two_processes_train_to_the_weights_of_one(
    both: Path, alone: tuple[Learner, dict[str, Any]], tiny_model: Path
) -> None:
    learner, figures = alone
    begun = Policy(tiny_model, compute="float32")
    whole = Learner(Policy(tiny_model, compute="float32"), mates.SETTINGS)
    ranks.load(whole, both / "checkpoint", learner.updates)  # on one process what two wrote
    assert apart(whole.policy, learner.policy, begun) <= TOLERANCE
    assert digest(folder.read(both / "published")) == digest(whole.policy.published())
    told = json.loads((both / "step.json").read_text())
    for name, value in told["figures"].items():
        if not name.endswith(("_s", "mfu")):
            assert value == pytest.approx(figures[name], rel=1e-3, abs=1e-4), name


def test_each_reads_its_own_partitions_and_holds_its_part(both: Path, tiny_model: Path) -> None:
    seen = [json.loads((both / f"seen-{n}.json").read_text()) for n in range(2)]
    assert [one["partitions"] for one in seen] == [[0, 2], [1, 3]]
    assert not {*seen[0]["sessions"]} & {*seen[1]["sessions"]}, "groups are whole"
    assert len(seen[0]["sessions"]) + len(seen[1]["sessions"]) == 24
    size = sum(p.numel() for p in Policy(tiny_model).parameters.values())
    assert sum(one["parts"] for one in seen) == size
    assert max(one["parts"] for one in seen) < 0.6 * size
    assert seen[0]["digest"] == seen[1]["digest"], "both see the whole that is published"


def test_they_go_on_from_their_checkpoint_to_the_same_bits(both: Path) -> None:
    goes_on, again = json.loads((both / "step.json").read_text())["ends"]
    assert goes_on == again


def test_a_trainer_of_two_processes_accounts_as_one(
    trainer: Mill, single: tuple[Mill, Trainer]
) -> None:
    """Each process reads one of the two partitions."""
    one, _ = single
    steps = trainer.steps()
    assert {given.partition for step in steps for given in step.inputs} == {0, 1}
    assert [step.inputs for step in steps] == [step.inputs for step in one.steps()]
    assert [step.processes for step in steps] == [2] * BATCHES
    ranges = [[update.ranges for update in mill.versions()] for mill in (trainer, one)]
    assert ranges[0] == ranges[1]
    decided = [sorted(map(_as_decided, mill.receipts())) for mill in (trainer, one)]
    assert decided[0] == decided[1] and len(decided[0]) == 8 * BATCHES
    assert trainer.audit().ok


def test_a_trainer_of_two_processes_trains_as_one_though_one_was_killed(
    trainer: Mill, single: tuple[Mill, Trainer], tiny_model: Path
) -> None:
    """The first version again from the log, then on; what they checkpoint one process takes up."""
    assert not any(step.reseeded for step in trainer.steps())
    head = trainer.versions()[-1]
    store = Checkpoints(trainer.settings.own_dir, kept=2)
    found = store.newest([(head.version, head.digest)])
    store.close()
    assert found is not None
    meta, state = found
    begun, both = Policy(tiny_model, compute="float32"), Policy(tiny_model, compute="float32")
    learner = Learner(both, trainer.settings)
    learner.load_masters(state)
    assert digest(both.published()) == head.digest
    assert apart(both, single[1]._policy, begun) <= TOLERANCE
    learner.load_moments(state, meta.updates)
    assert learner.updates == BATCHES


def batch(number: int) -> list[Trajectory]:
    """Two groups of four answers, each in a session of its own."""
    return [_of_group(8 * number + place) for place in range(8)]


def _of_group(number: int) -> Trajectory:
    session = f"default:set-{number // 4}"
    interaction = ids.new_interaction(session, TIME_MS)[:-13] + f"{number:013d}"
    return trajectory(
        number,
        interaction_id=interaction,
        trajectory_id=ids.trajectory(interaction, 0, ["r0"]),
        reward=float(number % 3 - 1),
        group_id=session,
        group_size=4,
    )


def _as_decided(receipt: Receipt) -> tuple[Any, ...]:
    source = receipt.source
    return source.partition, source.offset, receipt.outcome, receipt.version


def apart(one: Policy, other: Policy, begun: Policy) -> float:
    """How far two policies are from each other, as a share of how far they came."""
    between = moved = 0.0
    for name, master in other.masters.items():
        between += float((one.masters[name] - master).square().sum())
        moved += float((master - begun.masters[name]).square().sum())
    return (between / moved) ** 0.5
