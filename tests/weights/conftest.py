"""A channel: the topics of one model on both logs, and a trainer that publishes on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import fsspec
import pytest

from tailrace import topics
from tailrace.events import ModelUpdate
from tailrace.log.base import Log, Producer
from tailrace.weights import codec
from tailrace.weights.publisher import Publisher
from tailrace.weights.subscriber import Subscriber
from tailrace.weights.tensors import Tensor, digest, digest_files
from tailrace.weights.trust import new_key
from tailrace.wire import Wire
from tests.weights.models import FILES

MODEL = "tiny"
TOPICS = (
    topics.STEPS,
    topics.RECEIPTS,
    topics.MODEL_UPDATES,
    topics.MODEL_CHUNKS,
    topics.RELEASES,
    topics.SCHEMAS,
)


class Channel:
    """Topics under one prefix, and the versions that were published on them."""

    def __init__(self, log: Log, prefix: str) -> None:
        self.log = log
        self.prefix = prefix
        self.wire = Wire()
        self.versions: dict[int, Mapping[str, Tensor]] = {}
        log.create(TOPICS, prefix=prefix, session_partitions=3)
        self._open: list[Publisher | Subscriber | Producer] = []
        self._producer: Producer | None = None

    def publisher(self, model: str = MODEL, *, keyframe_store: str | None = None) -> Publisher:
        publisher = Publisher(
            self.log, self.wire, model=model, prefix=self.prefix, keyframe_store=keyframe_store
        )
        self._open.append(publisher)
        return publisher

    def subscriber(self, model: str = MODEL) -> Subscriber:
        subscriber = Subscriber(self.log, self.wire, model=model, prefix=self.prefix)
        self._open.append(subscriber)
        return subscriber

    def follow(self) -> Subscriber:
        """A subscriber that has read all there is."""
        subscriber = self.subscriber()
        subscriber.catch_up()
        return subscriber

    def append(self, topic: topics.Topic, value: bytes, key: str = MODEL) -> int:
        """Put any bytes on a topic, as a stranger might. Returns their offset."""
        if self._producer is None:
            self._producer = self.log.producer()
            self._open.append(self._producer)
        where = topics.named(topic, self.prefix)
        written = self._producer.append(where, value, key=key.encode(), partition=0)
        return written.result(10).offset

    def keyframe(
        self,
        publisher: Publisher,
        version: int,
        tensors: Mapping[str, Tensor],
        base: ModelUpdate | None = None,
        **more: object,
    ) -> ModelUpdate:
        manifest = self.manifest(version, tensors, base, config_digest=digest_files(FILES), **more)
        self.versions[version] = tensors
        return publisher.publish(manifest, codec.encode_keyframe(tensors, FILES), [], [])

    def delta(
        self,
        publisher: Publisher,
        version: int,
        tensors: Mapping[str, Tensor],
        base: ModelUpdate,
        **more: object,
    ) -> ModelUpdate:
        stream = codec.encode_delta(self.versions[base.version], tensors)
        self.versions[version] = tensors
        return publisher.publish(self.manifest(version, tensors, base, **more), stream, [], [])

    def label(self, publisher: Publisher, version: int, base: ModelUpdate) -> ModelUpdate:
        """A zero-step version."""
        self.versions[version] = self.versions[base.version]
        return publisher.publish(self.manifest(version, self.versions[version], base), None, [], [])

    def manifest(
        self,
        version: int,
        tensors: Mapping[str, Tensor],
        base: ModelUpdate | None = None,
        **more: object,
    ) -> ModelUpdate:
        values: dict[str, object] = {
            "model": MODEL,
            "version": version,
            "created_ms": 1_700_000_000_000,
            "digest": digest(tensors),
            "base_version": None if base is None else base.version,
            "base_digest": None if base is None else base.digest,
        }
        return ModelUpdate(**(values | more))  # type: ignore[arg-type]

    def close(self) -> None:
        for part in self._open:
            part.close()


@pytest.fixture
def channel(log: Log, prefix: str) -> Iterator[Channel]:
    made = Channel(log, prefix)
    yield made
    made.close()


@pytest.fixture
def keys(tmp_path: Path) -> list[Path]:
    """Three private keys; beside each its public one."""
    files = [tmp_path / f"key-{number}" for number in range(3)]
    for file in files:
        new_key(file)
    return files


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> int:
    """Chunks of a few hundred bytes, so that tiny models have several."""
    monkeypatch.setattr("tailrace.weights.chunks.MAX_CHUNK_BYTES", 150)
    return 150


@pytest.fixture
def memory_channel() -> Iterator[Channel]:
    """A channel on the log in memory only, for what no broker has a part in."""
    from tailrace.log.memory import MemoryLog

    made = Channel(MemoryLog(), "")
    yield made
    made.close()


@pytest.fixture(params=["memory", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Two stores; what fsspec keeps in memory is emptied."""
    if request.param == "file":
        yield f"file://{tmp_path}/keyframes"
        return
    yield "memory://keyframes"
    fsspec.filesystem("memory").store.clear()
