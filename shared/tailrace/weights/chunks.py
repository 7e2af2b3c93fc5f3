"""Streams on ``model-chunks``: raw records of at most ``MAX_CHUNK_BYTES``, found by their offsets.

The publisher appends, the subscriber reads. Other records may lie between a stream's chunks: other
versions', other models', or those of a publisher that died.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
import io

from tailrace.ends import to_ends
from tailrace.errors import LogError, UpdateRefused
from tailrace.events import Chunks
from tailrace.log.base import Consumer, Log, Position, Producer
from tailrace.topics import MAX_CHUNK_BYTES

_CHUNKS_IN_FLIGHT = 16
_CHUNKS_A_POLL = 8
_ACK_TIMEOUT_S = 60.0


def append(producer: Producer, topic: str, stream: bytes, *, key: bytes, version: int) -> Chunks:
    """Put a stream on the topic, a few chunks in flight. Returns where it lies.

    Raises LogError when a chunk is not acknowledged.
    """
    view = memoryview(stream)
    count = -(-len(view) // MAX_CHUNK_BYTES)
    offsets: list[int] = []
    waiting: deque[Future[Position]] = deque()
    try:
        for index in range(count):
            if len(waiting) == _CHUNKS_IN_FLIGHT:
                offsets.append(waiting.popleft().result(_ACK_TIMEOUT_S).offset)
            value = bytes(view[index * MAX_CHUNK_BYTES : (index + 1) * MAX_CHUNK_BYTES])
            headers = {
                "tailrace-version": str(version).encode(),
                "tailrace-chunk": f"{index}/{count}".encode(),
            }
            waiting.append(producer.append(topic, value, key=key, partition=0, headers=headers))
        offsets += [future.result(_ACK_TIMEOUT_S).offset for future in waiting]
    except TimeoutError:
        raise LogError(f"{topic}: a chunk was not acknowledged in {_ACK_TIMEOUT_S} s") from None
    return Chunks(partition=0, offsets=offsets)


class ChunkReader:
    """Collects the chunks of one model's streams. For one thread."""

    def __init__(self, log: Log, topic: str, *, key: bytes) -> None:
        self._log, self._topic, self._key = log, topic, key
        self._consumer: Consumer | None = None

    def low(self, partition: int = 0) -> int:
        """The first offset that was not deleted."""
        return self._log.starts(self._topic).get(partition, 0)

    def read(self, chunks: Chunks, size_bytes: int, heard: Callable[[int], None]) -> bytes:
        """The bytes of these chunks, ``size_bytes`` at most; ``heard`` is told how many came.

        Raises UpdateRefused: ``truncated`` (chunks are missing or deleted), ``corrupt`` (they are
        another's, or too many bytes). Raises LogError when the broker stops answering.
        """
        offsets, partition = chunks.offsets, chunks.partition
        if not offsets or offsets != sorted(set(offsets)) or offsets[0] < 0:
            raise UpdateRefused("corrupt", f"offsets {offsets[:3]}...")
        low = self._log.starts(self._topic).get(partition)
        high = self._log.ends(self._topic).get(partition)
        if low is None or high is None or offsets[0] < low or offsets[-1] >= high:
            need = f"{offsets[0]}..{offsets[-1]}"
            raise UpdateRefused("truncated", f"chunks {need} of {low}..{high}")
        if self._consumer is None:
            self._consumer = self._log.consumer()
        self._consumer.assign({(self._topic, partition): offsets[0]})
        try:
            return self._collect(self._consumer, partition, set(offsets), size_bytes, heard)
        finally:
            self._consumer.assign({})

    def close(self) -> None:
        """Let go of the consumer."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    def _collect(
        self,
        consumer: Consumer,
        partition: int,
        wanted: set[int],
        size_bytes: int,
        heard: Callable[[int], None],
    ) -> bytes:
        stream = io.BytesIO()
        end = {(self._topic, partition): max(wanted) + 1}
        for records in to_ends(consumer, end, max_records=_CHUNKS_A_POLL):
            for record in records:
                if record.offset not in wanted:
                    continue
                wanted.remove(record.offset)
                if record.key != self._key or not record.value:
                    where = f"{record.topic}/{record.partition}/{record.offset}"
                    raise UpdateRefused("corrupt", f"{where} is not its chunk")
                stream.write(record.value)
                if stream.tell() > size_bytes:
                    raise UpdateRefused("corrupt", f"more than its {size_bytes} bytes")
                heard(len(record.value))
        if wanted:
            raise UpdateRefused("truncated", f"the chunk at {min(wanted)} is gone")
        return stream.getvalue()
