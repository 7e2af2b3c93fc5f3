"""A trainer that kills itself at a numbered point of publishing version 1 (run by test_crash).

    python -m tests.weights.dying BOOTSTRAP PREFIX POINT [KEYFRAME_STORE]

1  after the first chunk was acknowledged      3  in the transaction, all written, before its commit
2  after all chunks, before the transaction    4  after the commit

With a store version 1 is a keyframe: at 1 half of it is written there, at 2 all of it.
"""

from __future__ import annotations

from concurrent.futures import Future
import os
import signal
import sys
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from tailrace.log.base import Position
from tailrace.log.kafka import KafkaLog
from tailrace.log.kafka_producer import KafkaProducer
from tailrace.weights import chunks, codec
from tailrace.weights.publisher import Publisher
from tailrace.wire import Wire
from tests.weights import account
from tests.weights.models import FILES, model, trained


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class DyingProducer(KafkaProducer):
    """Does what its base does, up to a point."""

    point = 0
    begun = 0

    def append(self, *args: Any, **more: Any) -> Future[Position]:
        future = super().append(*args, **more)
        if self.point == 1 and self.begun == 0 and not self._id:
            future.result(10)
            _die()
        return future

    def begin(self) -> None:
        self.begun += 1
        if self.point == 2 and self.begun == 2:  # the first only fences
            _die()
        super().begin()

    def commit(self) -> None:
        self.flush()
        if self.point == 3:
            _die()
        super().commit()
        if self.point == 4:
            _die()


class DyingLog(KafkaLog):
    def producer(self, *, transactional_id: str | None = None) -> KafkaProducer:
        return DyingProducer(self._config, transactional_id, self._delivery_timeout_s)


def _die_half_way(store: LocalFileSystem, path: str, stream: bytes) -> None:
    store._open(path, "wb").write(stream[: len(stream) // 2])
    _die()


def main() -> None:
    bootstrap, prefix, point, *store = sys.argv[1:]
    DyingProducer.point = int(point)
    chunks.MAX_CHUNK_BYTES = 150  # several chunks
    publisher = Publisher(
        DyingLog(bootstrap),
        Wire(),
        model="tiny",
        prefix=prefix,
        keyframe_store=store[0] if store else None,
    )
    base = publisher.head()
    assert base is not None
    manifest, stream, steps, receipts = account.of_version(1, base, model())
    if store:
        stream = codec.encode_keyframe(trained(model(), 1), FILES)
    if store and point == "1":
        LocalFileSystem.pipe_file = _die_half_way
    publisher.publish(manifest, stream, steps, receipts)


if __name__ == "__main__":
    main()
