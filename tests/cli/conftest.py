"""A scene with four versions and a desk, on both logs or in memory alone; a step of the tiny model
on a log that the command line finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tailrace import cli, topics
from tailrace.events import ModelUpdate
from tailrace.log import kafka
from tailrace.log.base import Log
from tailrace.log.memory import MemoryLog
from tailrace.weights import codec, folder, trust
from tailrace.weights.publisher import Publisher
from tailrace.weights.tensors import digest, digest_files
from tailrace.wire import Wire
from tests.cli.play import Play
from tests.cli.river import River
from tests.engine.models import MODEL

Run = Callable[..., int]


def _play(log: Log, prefix: str = "") -> Iterator[Play]:
    made = Play(log, prefix)
    made.scene.versions(4)
    made.desk = made.scene.desk()
    yield made
    made.close()


@pytest.fixture
def play(log: Log, prefix: str) -> Iterator[Play]:
    yield from _play(log, "" if isinstance(log, MemoryLog) else prefix)


@pytest.fixture
def memory() -> Iterator[Play]:
    yield from _play(MemoryLog())


def publish(log: MemoryLog, model: Path, key: Path) -> list[ModelUpdate]:
    """A model folder and a small step of it, signed."""
    log.create(topics.TOPICS, session_partitions=1)
    trust.new_key(key)
    publisher = Publisher(log, Wire(), model=MODEL, signing_key=key)
    tensors, files = folder.read(model), folder.read_files(model)
    first = ModelUpdate(
        model=MODEL,
        version=0,
        created_ms=1,
        digest=digest(tensors),
        config_digest=digest_files(files),
    )
    updates = [publisher.publish(first, codec.encode_keyframe(tensors, files), [], [])]
    name = next(name for name in tensors if "mlp" in name)
    bits = tensors[name].bits.copy()
    bits[:7] += 1
    after = tensors | {name: type(tensors[name]).of("bfloat16", tensors[name].shape, bits)}
    second = ModelUpdate(
        model=MODEL,
        version=1,
        created_ms=2,
        base_version=0,
        base_digest=first.digest,
        digest=digest(after),
    )
    updates.append(publisher.publish(second, codec.encode_delta(tensors, after), [], []))
    publisher.close()
    return updates


@pytest.fixture
def found_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MemoryLog:
    """The log that the command line finds."""
    log = MemoryLog()
    monkeypatch.setattr(kafka, "KafkaLog", lambda bootstrap: log)
    monkeypatch.chdir(tmp_path)
    return log


@pytest.fixture
def published(found_log: MemoryLog, tiny_model: Path, tmp_path: Path) -> list[ModelUpdate]:
    """Versions 0 and 1 of the tiny model."""
    return publish(found_log, tiny_model, tmp_path / "signer")


@pytest.fixture
def run(published: list[ModelUpdate]) -> Run:
    """The exit code of ``tailrace models``."""
    return lambda *arguments: cli.main(["models", *arguments, "--model", MODEL])


@pytest.fixture
def river() -> Iterator[River]:
    made = River()
    yield made
    made.close()


@pytest.fixture
def flowing(river: River) -> River:
    """Two answers, one liked and one not, in version 1; two engines, one of them on version 2."""
    river.learn()
    river.ack("one", 1, apply_ms=300.0, pause_ms=200.0)
    river.ack("two", 1, "refused", reason="canary: differs")
    river.train(2, 1)
    river.ack("one", 2, apply_ms=310.0, pause_ms=210.0)
    return river
