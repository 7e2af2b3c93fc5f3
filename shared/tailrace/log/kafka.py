"""The log on Kafka, by confluent-kafka.

Producers are in :mod:`tailrace.log.kafka_producer`. Consumers are assigned by hand and never commit
on their own. Offsets asked of the broker are read uncommitted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
import time
from typing import Any, TypeVar
import uuid

import confluent_kafka as ck
from confluent_kafka import admin

from tailrace.errors import LogError, MissingTopic
from tailrace.log.base import LogRecord
from tailrace.log.kafka_errors import REQUEST_TIMEOUT_S, error_of, refuse, report
from tailrace.log.kafka_producer import KafkaProducer
from tailrace.topics import MAX_RECORD_BYTES, Topic, named

T = TypeVar("T")
_MOVING = (
    ck.KafkaError.NOT_LEADER_FOR_PARTITION,
    ck.KafkaError.LEADER_NOT_AVAILABLE,
    ck.KafkaError.FENCED_LEADER_EPOCH,
    ck.KafkaError.UNKNOWN_LEADER_EPOCH,
    ck.KafkaError.UNKNOWN_TOPIC_OR_PART,
)
"""A topic was just made, or its leader moves: the admin client does not ask again by itself."""
_NO_COORDINATOR = (
    ck.KafkaError.NOT_COORDINATOR,
    ck.KafkaError.COORDINATOR_NOT_AVAILABLE,
    ck.KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    ck.KafkaError._WAIT_COORD,
)
"""Nobody has the group at the moment, as on a broker that has just started."""


class KafkaLog:
    """A Kafka cluster. ``delivery_timeout_s`` bounds how long an append may wait for it."""

    def __init__(self, bootstrap: str, *, delivery_timeout_s: float = 60.0) -> None:
        self._config: dict[str, Any] = {
            "bootstrap.servers": bootstrap,
            "log_level": 0,
            "error_cb": report,
        }
        self._delivery_timeout_s = delivery_timeout_s
        self._admin = admin.AdminClient(self._config)

    def reach(self, timeout_s: float) -> None:
        try:
            self._admin.list_topics(timeout=timeout_s)
        except ck.KafkaException as error:
            refuse(error, f"no answer from {self._config['bootstrap.servers']}")

    def create(
        self, topics: Sequence[Topic], *, prefix: str = "", session_partitions: int = 12
    ) -> None:
        wanted = [
            admin.NewTopic(
                named(t, prefix),
                num_partitions=t.partitions(session_partitions),
                replication_factor=-1,
                config=t.config(),
            )
            for t in topics
        ]
        for name, done in self._admin.create_topics(wanted).items():
            try:
                done.result(REQUEST_TIMEOUT_S)
            except ck.KafkaException as error:
                if error.args[0].code() != ck.KafkaError.TOPIC_ALREADY_EXISTS:
                    refuse(error, f"create {name}")
        # The controller knows them; wait until the broker that answers clients does too.
        deadline, names = time.monotonic() + REQUEST_TIMEOUT_S, {t.topic for t in wanted}
        while missing := names - self._admin.list_topics(timeout=REQUEST_TIMEOUT_S).topics.keys():
            if time.monotonic() > deadline:
                raise LogError(f"create: {sorted(missing)} do not appear")
            time.sleep(0.05)

    def partitions(self, topic: str) -> int:
        try:
            metadata = self._admin.list_topics(topic, timeout=REQUEST_TIMEOUT_S).topics[topic]
        except ck.KafkaException as error:
            refuse(error, topic)
        if metadata.error is not None:
            missing = metadata.error.code() == ck.KafkaError.UNKNOWN_TOPIC_OR_PART
            raise (MissingTopic if missing else LogError)(f"{topic}: {metadata.error}")
        return len(metadata.partitions)

    def starts(self, topic: str) -> dict[int, int]:
        return self._offsets(topic, admin.OffsetSpec.earliest())

    def ends(self, topic: str) -> dict[int, int]:
        return self._offsets(topic, admin.OffsetSpec.latest())

    def offsets_at(self, topic: str, time_ms: int) -> dict[int, int]:
        found = self._offsets(topic, admin.OffsetSpec.for_timestamp(time_ms))
        if all(offset >= 0 for offset in found.values()):
            return found
        ends = self.ends(topic)
        return {p: offset if offset >= 0 else ends[p] for p, offset in found.items()}

    def delete_before(self, topic: str, offsets: Mapping[int, int]) -> None:
        positions = [ck.TopicPartition(topic, p, offset) for p, offset in offsets.items()]
        for done in self._admin.delete_records(positions).values():
            try:
                done.result(REQUEST_TIMEOUT_S)
            except ck.KafkaException as error:
                refuse(error, f"delete records of {topic}")

    def retention_ms(self, topic: str) -> int | None:
        self.partitions(topic)  # says that a topic is not there; describing it would not
        resource = admin.ConfigResource(admin.ResourceType.TOPIC, topic)
        (done,) = self._admin.describe_configs([resource]).values()
        try:
            config = done.result(REQUEST_TIMEOUT_S)
        except ck.KafkaException as error:
            refuse(error, f"configuration of {topic}")
        if "delete" not in str(config["cleanup.policy"].value):
            return None
        kept_ms = int(str(config["retention.ms"].value))
        return None if kept_ms < 0 else kept_ms

    def forget_group(self, group: str) -> None:
        (done,) = self._admin.delete_consumer_groups([group]).values()
        try:
            done.result(REQUEST_TIMEOUT_S)
        except ck.KafkaException as error:
            if error.args[0].code() != ck.KafkaError.GROUP_ID_NOT_FOUND:
                refuse(error, f"forget group {group}")

    def producer(self, *, transactional_id: str | None = None) -> KafkaProducer:
        return KafkaProducer(self._config, transactional_id, self._delivery_timeout_s)

    def consumer(self, *, group: str | None = None, committed_only: bool = False) -> KafkaConsumer:
        return KafkaConsumer(self._config, group, committed_only)

    def close(self) -> None:
        """The admin client has nothing to flush."""

    def _offsets(self, topic: str, spec: Any) -> dict[int, int]:
        wanted = {ck.TopicPartition(topic, p): spec for p in range(self.partitions(topic))}
        deadline = time.monotonic() + REQUEST_TIMEOUT_S
        while True:
            futures = self._admin.list_offsets(wanted, request_timeout=REQUEST_TIMEOUT_S)
            try:
                found = {tp.partition: f.result(REQUEST_TIMEOUT_S) for tp, f in futures.items()}
                return {partition: result.offset for partition, result in found.items()}
            except ck.KafkaException as error:
                if error.args[0].code() not in _MOVING or time.monotonic() > deadline:
                    refuse(error, f"offsets of {topic}")
            time.sleep(0.05)


class KafkaConsumer:
    """See :class:`tailrace.log.base.Consumer`."""

    def __init__(self, config: Mapping[str, Any], group: str | None, committed_only: bool) -> None:
        self._group = group
        self._positions: dict[tuple[str, int], int] = {}
        self._failed: LogError | None = None
        """An error that came among records: raised after they were given."""
        self._consumer = ck.Consumer(
            {
                **config,
                "group.id": group or f"tailrace-reader-{uuid.uuid4().hex}",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed" if committed_only else "read_uncommitted",
                "fetch.message.max.bytes": MAX_RECORD_BYTES,
                "queued.max.messages.kbytes": 32 * 1024,
                "fetch.wait.max.ms": 100,
                # A full queue would be asked again after a second, empty long since.
                "fetch.queue.backoff.ms": 10,
            }
        )

    def assign(self, positions: Mapping[tuple[str, int], int]) -> None:
        self._positions = dict(positions)
        self._consumer.assign([ck.TopicPartition(t, p, o) for (t, p), o in positions.items()])

    def poll(self, timeout_s: float, max_records: int = 500) -> list[LogRecord]:
        if self._failed is not None:
            failed, self._failed = self._failed, None
            raise failed
        deadline = time.monotonic() + timeout_s
        while True:
            # One blocking poll, then what is there already: consume() alone would always wait it
            # out.
            first = self._consumer.poll(max(0.0, deadline - time.monotonic()))
            if first is None:
                return []
            rest = self._consumer.consume(max_records - 1, 0) if max_records > 1 else []
            before = dict(self._positions)
            records = []
            for message in (first, *rest):
                try:
                    record = self._record(message)
                except LogError as error:
                    self._failed = error
                    continue
                if record is not None:
                    records.append(record)
            if self._failed is not None and not records:
                failed, self._failed = self._failed, None
                raise failed
            if records or self._positions != before or time.monotonic() >= deadline:
                return records

    def _record(self, message: ck.Message) -> LogRecord | None:
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        error = message.error()
        if error is not None and error.code() != ck.KafkaError._PARTITION_EOF:
            if error.retriable() or error.code() in (
                ck.KafkaError._ALL_BROKERS_DOWN,
                ck.KafkaError._TRANSPORT,
            ):
                return None
            raise error_of(error, str(topic))
        if topic is None or partition is None or offset is None:
            return None
        if (topic, partition) not in self._positions:
            return None  # fetched before the last assign
        if error is not None:
            self._positions[topic, partition] = max(self._positions[topic, partition], offset)
            return None
        self._positions[topic, partition] = offset + 1
        return LogRecord(
            topic=topic,
            partition=partition,
            offset=offset,
            time_ms=message.timestamp()[1],
            key=_bytes(message.key()),
            value=_bytes(message.value()),
            headers={name: _bytes(v) or b"" for name, v in message.headers() or []},
        )

    def position(self, topic: str, partition: int) -> int:
        return self._positions[topic, partition]

    def committed(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        assert self._group, "a consumer without a group commits nothing"
        wanted = [ck.TopicPartition(topic, p) for p in partitions]
        found = self._coordinated(
            lambda: _whole(self._consumer.committed(wanted, timeout=REQUEST_TIMEOUT_S)),
            f"committed offsets of {topic}",
        )
        return {tp.partition: tp.offset for tp in found if tp.offset >= 0}

    def commit(self, topic: str, offsets: Mapping[int, int]) -> None:
        assert self._group, "a consumer without a group commits nothing"
        wanted = [ck.TopicPartition(topic, p, offset) for p, offset in offsets.items()]
        self._coordinated(
            lambda: _whole(self._consumer.commit(offsets=wanted, asynchronous=False)),
            f"commit offsets of {topic}",
        )

    def _coordinated(self, request: Callable[[], T], what: str) -> T:
        """What the group's coordinator answers; asked again while there is none."""
        deadline = time.monotonic() + REQUEST_TIMEOUT_S
        while True:
            try:
                return request()
            except ck.KafkaException as error:
                code = error.args[0].code()
                if code not in _NO_COORDINATOR or time.monotonic() > deadline:
                    refuse(error, what)
            time.sleep(0.05)

    def close(self) -> None:
        self._consumer.close()


def _whole(answer: list[ck.TopicPartition]) -> list[ck.TopicPartition]:
    """An answer about all its partitions: librdkafka raises only what concerns the whole request.

    Raises KafkaException for the first partition that failed.
    """
    for partition in answer:
        if partition.error is not None:
            raise ck.KafkaException(partition.error)
    return answer


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value
