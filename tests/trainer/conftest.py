"""A trainer on the in-memory log, with the tiny model and an injected clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from services.trainer.learner import deterministic
from services.trainer.settings import Settings
from services.trainer.trainer import Trainer
from tailrace import audit, topics
from tailrace.events import Command, ModelUpdate, Receipt, Release, Step
from tailrace.log.base import Log
from tailrace.log.kafka import KafkaLog
from tailrace.log.memory import MemoryLog
from tailrace.stream import Decoder, Writer, read_all
from tailrace.topics import Topic, named
from tailrace.wire import Wire
from tests.trainer import traffic
from tests.trainer.nursery import HORIZON_S, Nursery


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s

    def wall_ms(self) -> int:
        return int(traffic.TIME_MS + self.now_s * 1000)


class Mill:
    """One log, and trainers on it one after the other."""

    def __init__(
        self, log: Log, model_dir: Path, state_dir: Path, *, clock: Clock, prefix: str = ""
    ) -> None:
        self.log, self.prefix, self.clock = log, prefix, clock
        self.settings = Settings(
            model=traffic.MODEL,
            model_dir=model_dir,
            state_dir=state_dir,
            prefix=prefix,
            batch_answers=8,
            min_answers=4,
            micro_answers=4,
            lr=1e-3,
            threads=1,
        )
        traffic.make_topics(log, prefix)
        self._open: list[Trainer] = []

    def trainer(self, crash: Callable[[str], None] = lambda point: None, **changes: Any) -> Trainer:
        settings = msgspec.structs.replace(self.settings, **changes)
        made = Trainer(
            self.log,
            Wire(),
            settings,
            clock=self.clock,
            wall_ms=self.clock.wall_ms,
            crash=crash,
        )
        self._open.append(made)
        return made

    def put(self, *trajectories: Any) -> None:
        traffic.put(self.log, trajectories, self.prefix)

    def drain(self) -> None:
        self.order("drain")

    def order(self, command: str, model: str = traffic.MODEL) -> None:
        producer = self.log.producer()
        writer = Writer(producer, Wire(), prefix=self.prefix)
        order = Command(model=model, event_time_ms=traffic.TIME_MS, command=command)
        writer.write(topics.CONTROL, order)
        producer.flush()
        producer.close()

    def release(self, **fields: Any) -> None:
        """As the releases service writes it."""
        producer = self.log.producer()
        writer = Writer(producer, Wire(), prefix=self.prefix)
        release = Release(model=traffic.MODEL, event_time_ms=traffic.TIME_MS, **fields)
        writer.write(topics.RELEASES, release).result(10)
        producer.close()

    def roll_back(self, live: int, data: str = "skip") -> None:
        self.release(live=live, withdrawn_to=self.versions()[-1].version, data=data)

    def read(self, topic: Topic) -> list[Any]:
        decoder = Decoder(self.log, Wire(), prefix=self.prefix)
        name = named(topic, self.prefix)
        return [decoder.decode(r) for r in read_all(self.log, name, committed_only=True)]

    def versions(self) -> list[ModelUpdate]:
        return self.read(topics.MODEL_UPDATES)

    def steps(self) -> list[Step]:
        return self.read(topics.STEPS)

    def receipts(self) -> list[Receipt]:
        return self.read(topics.RECEIPTS)

    def audit(self, head: int | None = None) -> audit.Report:
        return audit.read(self.log, Wire(), model=traffic.MODEL, prefix=self.prefix).report(head)

    def forget(self, trainer: Trainer) -> None:
        """It was closed, or it died."""
        self._open.remove(trainer)

    def lose(self, trainer: Trainer) -> None:
        """As if it had been killed: nothing of it is finished, only its threads end."""
        self.forget(trainer)
        trainer._checkpoints.close()

    def close(self) -> None:
        for trainer in self._open:
            trainer.close()


@pytest.fixture(autouse=True)
def determined() -> Iterator[None]:
    before = torch.get_num_threads()
    deterministic(1)
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(before)


@pytest.fixture
def mill(tiny_model: Path, tmp_path: Path) -> Iterator[Mill]:
    clock = Clock()
    made = Mill(MemoryLog(clock.wall_ms), tiny_model, tmp_path / "state", clock=clock)
    yield made
    made.close()


@pytest.fixture
def kafka_mill(broker: Any, prefix: str, tiny_model: Path, tmp_path: Path) -> Iterator[Mill]:
    """On the run's broker, for real trainer processes."""
    log = KafkaLog(broker.bootstrap)
    made = Mill(log, tiny_model, tmp_path / "state", clock=Clock(), prefix=prefix)
    made.settings = msgspec.structs.replace(made.settings, horizon_s=HORIZON_S)
    yield made
    made.close()
    log.close()


@pytest.fixture(scope="session")
def nursery(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Starts real trainer processes at once: what is heavy is imported once for all of them."""
    with Nursery(tiny_model, tmp_path_factory.mktemp("nursery")) as made:
        yield made
