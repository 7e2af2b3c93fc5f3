"""Appends to Kafka: idempotent, acks=all, murmur2 partitions.

Made by :class:`tailrace.log.kafka.KafkaLog`. Each producer has a thread that serves delivery
reports: futures end there, so nothing that waits for them needs to poll.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
import threading
from typing import Any, NoReturn

import confluent_kafka as ck

from tailrace.errors import Broken, LogError
from tailrace.log.base import Headers, Position
from tailrace.log.kafka_errors import REQUEST_TIMEOUT_S, error_of, refuse
from tailrace.topics import MAX_RECORD_BYTES

_PURGED = (ck.KafkaError._PURGE_QUEUE, ck.KafkaError._PURGE_INFLIGHT)


class KafkaProducer:
    """See :class:`tailrace.log.base.Producer`."""

    def __init__(
        self, config: Mapping[str, Any], transactional_id: str | None, delivery_timeout_s: float
    ) -> None:
        timeout_ms = int(delivery_timeout_s * 1000)
        own: dict[str, Any] = {
            "enable.idempotence": True,
            "acks": "all",
            "partitioner": "murmur2_random",
            "linger.ms": 5,
            "message.max.bytes": MAX_RECORD_BYTES,
            "delivery.timeout.ms": timeout_ms,
        }
        if transactional_id:
            own |= {
                "transactional.id": transactional_id,
                "transaction.timeout.ms": max(timeout_ms, 60_000),
            }
        self._id = transactional_id
        self._producer = ck.Producer({**config, **own})
        self._initialised = False
        self._failed: LogError | None = None
        self._fatal: LogError | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="tailrace-producer", daemon=True)
        self._thread.start()

    def append(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        partition: int | None = None,
        headers: Headers | None = None,
    ) -> Future[Position]:
        done: Future[Position] = Future()
        # Who gives up waiting cannot cancel it: a cancelled one would end the thread that reports.
        done.set_running_or_notify_cancel()

        def delivered(error: ck.KafkaError | None, message: ck.Message) -> None:
            if error is None:
                done.set_result(Position(message.partition() or 0, message.offset() or 0))
                return
            failed = error_of(error, topic)
            if not (self._id and error.code() in _PURGED):  # an abort purges what waits: no failure
                self._failed = failed
            done.set_exception(failed)

        where = {} if partition is None else {"partition": partition}
        try:
            self._producer.produce(
                topic,
                value,
                key,
                on_delivery=delivered,
                headers=list((headers or {}).items()),
                **where,
            )
        except BufferError:
            raise LogError(f"{topic}: the producer's queue is full") from None
        except ck.KafkaException as error:
            self._refuse(error, topic)
        return done

    def flush(self, timeout_s: float = 30.0) -> None:
        left = self._flush(timeout_s)
        failed, self._failed = self._fatal or self._failed, None
        if failed is not None:
            raise failed
        if left:
            raise LogError(f"{left} records were not acknowledged within {timeout_s} s")

    def begin(self) -> None:
        try:
            if not self._initialised:
                self._producer.init_transactions(REQUEST_TIMEOUT_S)
                self._initialised = True
            self._producer.begin_transaction()
        except ck.KafkaException as error:
            self._refuse(error, f"begin {self._id}")

    def commit(self) -> None:
        self.flush(REQUEST_TIMEOUT_S)
        try:
            self._producer.commit_transaction(REQUEST_TIMEOUT_S)
        except ck.KafkaException as error:
            self._refuse(error, f"commit {self._id}")

    def abort(self) -> None:
        try:
            self._producer.abort_transaction(REQUEST_TIMEOUT_S)
        except ck.KafkaException as error:
            self._refuse(error, f"abort {self._id}")
        self._failed = None

    def close(self) -> None:
        self._flush(5.0)
        self._ended.set()
        self._thread.join()

    def _serve(self) -> None:
        while not self._ended.is_set():
            try:
                self._producer.poll(0.1)
            except (ck.KafkaException, SystemError) as error:
                # Raised once, here or in _flush; without this thread no future would ever end.
                self._fatal = self._fatal_of(error)

    def _flush(self, timeout_s: float) -> int:
        try:
            left: int = self._producer.flush(timeout_s)
        except (ck.KafkaException, SystemError) as error:
            self._fatal = self._fatal_of(error)
            left = self._producer.flush(timeout_s)
        return left

    def _fatal_of(self, error: ck.KafkaException | SystemError) -> LogError:
        """The fatal error that a call to librdkafka raised.

        confluent-kafka 2.16 raises it from within a callback. When a delivery report is served
        behind that, the exception is gone and a SystemError comes instead: ask again.
        """
        what = self._id or "producer"
        if isinstance(error, SystemError) and self._id:
            try:
                self._producer.begin_transaction()
            except ck.KafkaException as told:
                error = told
        if isinstance(error, ck.KafkaException):
            return error_of(error.args[0], what)
        return Broken(f"{what}: a fatal error, of which no more is known")

    def _refuse(self, error: ck.KafkaException, what: str) -> NoReturn:
        """After a fatal error librdkafka says only that there was one; say which."""
        if self._fatal is not None:
            raise self._fatal from None
        refuse(error, what)
