"""Orders to the trainer wait until the log shows that a real one obeyed."""

from __future__ import annotations

from collections.abc import Iterator
import json
from pathlib import Path

import pytest

from services.trainer.trainer import Trainer
from tailrace import cli, reading, topics, training
from tailrace.events import Command
from tailrace.log import kafka
from tailrace.log.memory import MemoryLog
from tailrace.settings import Common
from tailrace.training import Done
from tests.trainer.conftest import Clock, Mill
from tests.trainer.traffic import MODEL, trajectory


class Yard:
    """A mill whose trainer has a turn each time that somebody looks at the clock."""

    def __init__(self, mill: Mill) -> None:
        self.mill = mill
        self.trainer: Trainer | None = mill.trainer()
        self.now_s = 0.0

    def clock(self) -> float:
        self.now_s += 0.5
        if self.trainer is not None:
            self.trainer.turn(0.0)
        return self.now_s

    def give(self, command: str, timeout_s: float = 5.0) -> Done:
        common = Common(model=MODEL)
        return training.give(
            self.mill.log,
            common,
            command,
            reason="a test",
            principal="ops",
            timeout_s=timeout_s,
            clock=self.clock,
        )


@pytest.fixture
def yard(tiny_model: Path, tmp_path: Path) -> Iterator[Yard]:
    clock = Clock()
    mill = Mill(MemoryLog(clock.wall_ms), tiny_model, tmp_path / "state", clock=clock)
    yield Yard(mill)
    mill.close()


def test_a_freeze_and_its_thaw_are_answered(yard: Yard) -> None:
    mill = yard.mill
    done = yard.give("freeze")
    assert done.ok and done.said == "nothing is trained until a thaw" and done.version is None
    mill.put(*(trajectory(n) for n in range(8)))
    yard.clock()
    assert mill.steps() == []
    assert yard.give("thaw").ok
    yard.clock()
    assert len(mill.steps()) == 1
    said = [(a.stream, a.state, a.detector) for a in mill.read(topics.ALARMS)]
    assert said == [("trainer.frozen", state, "order") for state in ("fired", "cleared")]
    assert [a.source.offset for a in mill.read(topics.ALARMS)] == [0, 1]
    assert "nothing is trained until a thaw (ops: a test)" in mill.read(topics.ALARMS)[0].message


def test_an_order_while_no_trainer_runs_is_answered_by_the_next(yard: Yard) -> None:
    mill = yard.mill
    assert yard.trainer is not None
    mill.lose(yard.trainer)
    yard.trainer = None
    done = yard.give("freeze", timeout_s=2.0)
    assert not done.ok and "no trainer answered within" in done.said
    assert (done.order, mill.read(topics.ALARMS)) == ("control/0/0", [])
    mill.trainer()
    assert [a.source.offset for a in mill.read(topics.ALARMS)] == [0]


def test_a_keyframe_is_named(yard: Yard) -> None:
    done = yard.give("keyframe")
    assert (done.ok, done.version, done.said) == (True, 1, "version 1 is a keyframe")
    yard.trainer = None
    done = yard.give("keyframe", timeout_s=2.0)
    assert not done.ok and "no keyframe within" in done.said


def test_a_drain_is_over_when_all_that_was_there_is_decided(yard: Yard) -> None:
    yard.mill.put(*(trajectory(n) for n in range(3)))
    done = yard.give("drain")
    assert done.ok and done.version == 1, done
    assert yard.mill.audit().trajectories.in_flight == 0
    assert yard.give("drain").ok, "with nothing to do as well"
    assert yard.give("freeze").ok
    yard.mill.put(*(trajectory(n) for n in range(3, 6)))
    done = yard.give("drain")
    assert not done.ok and "3 trajectories are not decided" in done.said


def test_the_commands(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = MemoryLog()
    log.create(topics.TOPICS, session_partitions=1)
    monkeypatch.setattr(kafka, "KafkaLog", lambda bootstrap: log)
    monkeypatch.chdir(tmp_path)
    more = ("--timeout", "0", "--by", "ops", "--reason", "labels are wrong", "--model", MODEL)
    for number, command in enumerate(training.ORDERS[:2]):
        assert cli.main(["models", command, *more]) == 1
        assert f"not done (control/0/{number}): no trainer" in capsys.readouterr().out
    assert cli.main(["models", "drain", *more, "--json"]) == 0, "there is nothing to decide"
    assert json.loads(capsys.readouterr().out)["order"] == "control/0/2"
    assert cli.main(["models", "keyframe", *more]) == 1
    found = reading.read("control", log=log)
    orders = [event for _, event in found if isinstance(event, Command)]
    assert [(o.command, o.principal, o.reason) for o in orders] == [
        (command, "ops", "labels are wrong") for command in training.ORDERS
    ]
