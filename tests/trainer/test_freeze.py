"""Orders on control: freeze, thaw, keyframe, and what a trainer does not know."""

from __future__ import annotations

from concurrent.futures import Future
import logging
from pathlib import Path
from typing import Any

import pytest

from services.trainer import metrics
from tailrace import topics
from tailrace.errors import LogError
from tailrace.log.base import Position
from tailrace.log.memory import MemoryLog, MemoryProducer
from tailrace.weights.lineage import label_only
from tests.trainer.conftest import Clock, Mill
from tests.trainer.traffic import trajectory


def orders(word: str) -> float:
    return float(metrics.COMMANDS.labels(word)._value.get())


def test_nothing_is_trained_from_a_freeze_to_its_thaw(mill: Mill) -> None:
    trainer = mill.trainer()
    mill.order("freeze")
    mill.put(*(trajectory(n) for n in range(8)), trajectory(8, reward=None))
    assert not trainer.turn()
    mill.clock.now_s += mill.settings.batch_wait_s + mill.settings.account_s
    assert not trainer.turn()
    assert mill.steps() == []
    assert trainer.head.version == 1 and trainer.head.chunks is None, "decisions are published"
    report = mill.audit()
    assert report.ok, report.problems
    assert report.trajectories.in_flight == 8
    mill.order("thaw")
    assert trainer.turn()
    assert [len(step.inputs) for step in mill.steps()] == [8]


def test_a_drain_waits_for_the_thaw(mill: Mill) -> None:
    trainer = mill.trainer()
    mill.order("freeze")
    mill.put(*(trajectory(n) for n in range(3)))
    mill.drain()
    assert not trainer.turn() and not trainer.turn()
    mill.order("thaw")
    assert trainer.turn()
    assert mill.audit().trajectories.outcomes == {"trained": 3}


def test_a_freeze_holds_over_a_restart_and_a_thaw_while_nobody_ran_counts(mill: Mill) -> None:
    first = mill.trainer()
    mill.order("freeze")
    mill.put(*(trajectory(n) for n in range(8)))
    assert not first.turn()
    mill.lose(first)
    second = mill.trainer()
    assert not second.turn() and not second.turn()
    assert metrics.FROZEN._value.get() == 1
    mill.lose(second)
    mill.order("thaw")
    third = mill.trainer()
    assert metrics.FROZEN._value.get() == 0
    assert third.turn()


class Refusing(MemoryLog):
    """Takes no alarm, and says so as Kafka's producer does: in the record's future and, once more,
    when somebody waits for everything."""

    def producer(self, *, transactional_id: str | None = None) -> MemoryProducer:
        return _Refusing(self, transactional_id)


class _Refusing(MemoryProducer):
    failed: LogError | None = None

    def append(self, topic: str, *given: Any, **named: Any) -> Future[Position]:
        if topic != topics.ALARMS.name:
            return super().append(topic, *given, **named)
        self.failed = LogError(f"{topic}: not acknowledged")
        lost: Future[Position] = Future()
        lost.set_exception(self.failed)
        return lost

    def flush(self, timeout_s: float = 30.0) -> None:
        failed, self.failed = self.failed, None
        if failed is not None:
            raise failed


def test_an_alarm_that_the_log_does_not_take_is_counted_and_ends_nobody(
    tiny_model: Path, tmp_path: Path
) -> None:
    clock = Clock()
    mill = Mill(Refusing(clock.wall_ms), tiny_model, tmp_path / "state", clock=clock)
    before = metrics.ALARMS_LOST._value.get()
    trainer = mill.trainer()
    mill.order("freeze")
    producer = mill.log.producer()
    producer.append(topics.TRAJECTORIES.name, b"no avro", partition=0).result(10)
    trainer.turn(0.0)
    assert metrics.ALARMS_LOST._value.get() == before + 1
    clock.now_s += mill.settings.account_s
    trainer.turn(0.0)
    assert [r.reason for r in mill.receipts()] == ["invalid"]
    mill.close()


def test_a_drain_of_the_past_is_past(mill: Mill) -> None:
    mill.drain()
    trainer = mill.trainer()
    mill.put(*(trajectory(n) for n in range(3)))
    assert not trainer.turn() and not trainer.turn()


def test_a_keyframe_is_published_on_order_and_nobody_who_holds_its_weights_loads_it(
    mill: Mill,
) -> None:
    trainer = mill.trainer()
    mill.put(*(trajectory(n) for n in range(8)))
    assert trainer.turn()
    before = trainer.head
    mill.order("keyframe")
    assert not trainer.turn()
    head = trainer.head
    assert (head.version, head.kind, head.keyframe_version) == (2, "keyframe", 2)
    assert label_only(head) and head.digest == before.digest and head.chunks is not None
    assert head.config_digest == mill.read(topics.MODEL_UPDATES)[0].config_digest
    assert not trainer.turn() and trainer.head is head, "one is enough"
    mill.put(*(trajectory(n) for n in range(8, 16)))
    mill.order("keyframe")
    assert trainer.turn()
    assert (trainer.head.version, trainer.head.kind) == (3, "keyframe"), "with the step that is due"
    assert not label_only(trainer.head)
    mill.lose(trainer)
    again = mill.trainer()
    assert again.head.version == 3 and not again.turn()
    assert again.head.version == 3, "an order of the past is past"
    assert mill.audit().ok


def test_what_a_trainer_does_not_know_is_said_and_counted(
    mill: Mill, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = mill.trainer()
    unknown, other, frozen = orders("unknown"), orders("other_model"), orders("freeze")
    mill.order("erase")
    mill.order("rollback")  # the releases service's
    mill.order("freeze", model="another")
    with caplog.at_level(logging.WARNING):
        trainer.turn()
    assert orders("unknown") == unknown + 1 and orders("other_model") == other + 1
    assert orders("freeze") == frozen
    said = [record.getMessage() for record in caplog.records]
    assert any("command ignored" in text and "'erase'" in text for text in said), said
    mill.put(*(trajectory(n) for n in range(8)))
    assert trainer.turn()


def test_a_broken_order_does_not_keep_a_freeze_from_being_recalled(mill: Mill) -> None:
    producer = mill.log.producer()
    producer.append(topics.CONTROL.name, b"rubbish", key=b"tiny").result(10)
    producer.close()
    mill.order("freeze")
    trainer = mill.trainer()
    mill.put(*(trajectory(n) for n in range(8)))
    assert not trainer.turn()
