"""What a worker writes: changelog, trajectories, receipts, dead letters and ticks, by one producer.

In: bytes for a topic and a partition. Faust would write them too, but takes 127 µs for a table
value and 50 for a message; this takes a few. Faust is left with reading, recovery and commits.

- Nothing is dropped: where the queue is full, appending waits; the first delivery that fails ends
  the process, and nothing behind it in its partition is delivered.
- A partition's records lie in the order in which they were appended.
- :meth:`Outbox.flush` waits for all that was appended before it. Faust calls it before a commit.

All of it runs on the event loop: what librdkafka reports is heard by :meth:`Outbox.serve`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
import functools
from typing import Any, NoReturn

import confluent_kafka as ck

from services.rewards.table import RECORD_BYTES
from tailrace.log.kafka_errors import error_of, report

_DELIVERY_S = 60.0
_FLUSH_S = 120.0
_POLL_S = 0.005
Place = tuple[int, int]
"""Offset and append time in ms."""


class Outbox:
    """``on_failure`` ends the process: what was being done, and the error."""

    def __init__(
        self,
        kafka: str,
        on_failure: Callable[[str, BaseException | None], NoReturn],
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """``config``: more settings of librdkafka; tests make the queue small with it."""
        own = {
            "bootstrap.servers": kafka,
            "log_level": 0,
            "error_cb": report,
            "enable.idempotence": True,
            "enable.gapless.guarantee": True,
            "acks": "all",
            "linger.ms": 5,
            "message.max.bytes": RECORD_BYTES,
            "delivery.timeout.ms": int(_DELIVERY_S * 1000),
        }
        self._producer = ck.Producer({**own, **(config or {})})
        self._on_failure = on_failure
        self._epoch = 0
        self._unsent = {0: 0}
        """How many are not acknowledged, by the flush that was the newest when they came."""
        self._report = functools.partial(self._reported, 0)

    @property
    def unsent(self) -> int:
        """How many records are not acknowledged."""
        return sum(self._unsent.values())

    def append(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Mapping[str, bytes] | None = None,
    ) -> None:
        """Queue one record."""
        self._unsent[self._epoch] += 1
        self._produce(topic, partition, key, value, headers, self._report)

    async def append_and_wait(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Mapping[str, bytes] | None = None,
    ) -> Place:
        """Queue one record, and learn where it came to lie."""
        done: asyncio.Future[Place] = asyncio.get_running_loop().create_future()
        epoch = self._epoch

        def reported(error: ck.KafkaError | None, message: ck.Message) -> None:
            self._reported(epoch, error, message)
            if not done.done():
                done.set_result((message.offset(), message.timestamp()[1]))

        self._unsent[epoch] += 1
        self._produce(topic, partition, key, value, headers, reported)
        return await done

    async def flush(self) -> None:
        """Wait until everything that was appended before this is acknowledged."""
        last, loop = self._epoch, asyncio.get_running_loop()
        self._epoch += 1
        self._unsent[self._epoch] = 0
        self._report = functools.partial(self._reported, self._epoch)
        until = loop.time() + _FLUSH_S
        while left := sum(number for epoch, number in self._unsent.items() if epoch <= last):
            if loop.time() > until:
                self._on_failure(f"flush of {left} records", None)
            self._producer.poll(0)
            await asyncio.sleep(_POLL_S)
        for epoch in [epoch for epoch in self._unsent if epoch <= last]:
            del self._unsent[epoch]

    async def serve(self) -> None:
        """Hear what becomes of the records, as long as the worker runs."""
        while True:
            self._producer.poll(0)
            await asyncio.sleep(_POLL_S)

    def _produce(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Mapping[str, bytes] | None,
        on_delivery: Callable[[ck.KafkaError | None, ck.Message], None],
    ) -> None:
        while True:
            try:
                self._producer.produce(
                    topic,
                    value,
                    key,
                    partition=partition,
                    headers=dict(headers) if headers else None,
                    on_delivery=on_delivery,
                )
                return
            except BufferError:  # the queue is full: a place comes free, or a delivery fails
                self._producer.poll(0.1)
            except ck.KafkaException as error:
                self._on_failure(f"append to {topic}", error_of(error.args[0], topic))

    def _reported(self, epoch: int, error: ck.KafkaError | None, message: ck.Message) -> None:
        if error is not None:
            topic = message.topic() or ""
            self._on_failure(f"append to {topic}", error_of(error, topic))
        self._unsent[epoch] -= 1
