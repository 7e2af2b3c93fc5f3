"""What a broker refuses does not take with it what it delivered."""

from __future__ import annotations

from types import SimpleNamespace

import confluent_kafka as ck
import pytest

from tailrace.errors import Broken, Fenced, LogError
from tailrace.log.kafka import KafkaConsumer, KafkaLog
from tailrace.log.kafka_errors import error_of
from tailrace.topics import OUTPUTS


class Message:
    """What librdkafka hands over: a record, or an error of a partition."""

    def __init__(self, offset: int, error: int | None = None) -> None:
        self._offset, self._error = offset, error

    def topic(self) -> str:
        return "t"

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self._offset

    def error(self) -> ck.KafkaError | None:
        return None if self._error is None else ck.KafkaError(self._error)

    def timestamp(self) -> tuple[int, int]:
        return 2, 1

    def key(self) -> bytes | None:
        return None

    value = headers = key


class Inner:
    """Stands for librdkafka's consumer, which cannot be made to fail at will."""

    def __init__(self, *messages: Message) -> None:
        self._messages = list(messages)

    def poll(self, timeout_s: float) -> Message | None:
        return self._messages.pop(0) if self._messages else None

    def consume(self, count: int, timeout_s: float) -> list[Message]:
        taken, self._messages = self._messages[:count], self._messages[count:]
        return taken


def test_an_error_among_records_comes_after_them():
    consumer = KafkaConsumer({}, None, False)
    consumer.close()
    denied = Message(-1, ck.KafkaError.TOPIC_AUTHORIZATION_FAILED)
    consumer._consumer = Inner(Message(0), denied, Message(1))
    consumer._positions = {("t", 0): 0}
    assert [r.offset for r in consumer.poll(0.1)] == [0, 1]
    with pytest.raises(LogError, match="AUTHORIZATION"):
        consumer.poll(0.1)
    assert consumer.poll(0.0) == [] and consumer.position("t", 0) == 2
    consumer._consumer = Inner(denied)
    with pytest.raises(LogError):
        consumer.poll(0.1)


@pytest.mark.kafka
def test_who_gives_up_waiting_does_not_end_the_producer(broker, prefix):
    log = KafkaLog(broker.bootstrap)
    log.create([OUTPUTS], prefix=prefix, session_partitions=1)
    producer = log.producer()
    given_up = producer.append(prefix + "outputs", b"1", partition=0)
    assert not given_up.cancel()
    assert producer.append(prefix + "outputs", b"2", partition=0).result(30).offset == 1
    assert given_up.result(1).offset == 0
    producer.close()
    log.close()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ck.KafkaError(ck.KafkaError._FATAL), Broken),
        (ck.KafkaError(ck.KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, "lost", True), Broken),
        (ck.KafkaError(ck.KafkaError._FENCED, "taken over", True), Fenced),
        (ck.KafkaError(ck.KafkaError._MSG_TIMED_OUT), LogError),
    ],
)
def test_a_fatal_error_says_that_the_producer_is_broken(error, kind):
    assert type(error_of(error, "t")) is kind


class Losing:
    """confluent-kafka's producer when a delivery report takes the place of a fatal exception."""

    def __init__(self, inner: ck.Producer) -> None:
        self._inner = inner

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def poll(self, timeout_s: float) -> int:
        return self._lose(self._inner.poll, timeout_s)

    def flush(self, timeout_s: float) -> int:
        return self._lose(self._inner.flush, timeout_s)

    def _lose(self, call, timeout_s: float) -> int:
        try:
            return call(timeout_s)
        except ck.KafkaException:
            raise SystemError("returned NULL without setting an exception") from None


@pytest.mark.kafka
def test_a_fatal_error_whose_exception_is_lost_is_told_all_the_same(broker, prefix):
    log = KafkaLog(broker.bootstrap)
    log.create([OUTPUTS], prefix=prefix, session_partitions=1)
    first, second = (log.producer(transactional_id=prefix + "t") for _ in range(2))
    first._producer = Losing(first._producer)
    for producer in (first, second):
        producer.begin()
        producer.append(prefix + "outputs", b"1", partition=0)
        producer.commit()
    with pytest.raises(Fenced):
        first.begin()
        first.append(prefix + "outputs", b"2", partition=0)
        first.commit()
    assert first._thread.is_alive()
    with pytest.raises(Fenced):
        first.begin()
    first.close()
    second.close()
    log.close()


class Coordinator:
    """Stands for librdkafka's consumer while the group's coordinator moves."""

    def __init__(self, *errors: int) -> None:
        self._errors = list(errors)
        self.offsets: list[ck.TopicPartition] = []
        self.failing: list[tuple[int, int]] = []
        """Partitions, and the error each answers with once."""

    def _answer(self) -> None:
        if self._errors:
            raise ck.KafkaException(ck.KafkaError(self._errors.pop(0)))

    def committed(self, wanted: list[ck.TopicPartition], timeout: float) -> list[ck.TopicPartition]:
        self._answer()
        return self._partly(self.offsets)

    def commit(
        self, offsets: list[ck.TopicPartition], asynchronous: bool
    ) -> list[ck.TopicPartition]:
        self._answer()
        self.offsets = offsets
        return self._partly(offsets)

    def _partly(self, offsets: list[ck.TopicPartition]) -> list[ck.TopicPartition]:
        if not self.failing:
            return offsets
        partition, code = self.failing.pop(0)
        # The error of a real TopicPartition is librdkafka's alone to write.
        failed = SimpleNamespace(partition=partition, offset=-1001, error=ck.KafkaError(code))
        return [failed, *(tp for tp in offsets if tp.partition != partition)]


MOVING = (ck.KafkaError.NOT_COORDINATOR, ck.KafkaError.COORDINATOR_LOAD_IN_PROGRESS)


def test_a_coordinator_that_moves_is_asked_again():
    consumer = KafkaConsumer({}, "g", False)
    consumer.close()
    consumer._consumer = Coordinator(*MOVING)
    consumer.commit("t", {0: 7})
    consumer._consumer._errors = list(MOVING)
    assert consumer.committed("t", [0]) == {0: 7}
    consumer._consumer._errors = [ck.KafkaError.GROUP_AUTHORIZATION_FAILED]
    with pytest.raises(LogError, match="committed offsets of t"):
        consumer.committed("t", [0])


def test_an_error_of_one_partition_is_no_answer_about_it():
    consumer = KafkaConsumer({}, "g", False)
    consumer.close()
    consumer._consumer = Coordinator()
    consumer.commit("t", {0: 7, 1: 8})
    consumer._consumer.failing = [(1, code) for code in MOVING]
    assert consumer.committed("t", [0, 1]) == {0: 7, 1: 8}
    denied = [(1, ck.KafkaError.TOPIC_AUTHORIZATION_FAILED)]
    consumer._consumer.failing = list(denied)
    with pytest.raises(LogError, match="committed offsets of t.*TOPIC_AUTHORIZATION_FAILED"):
        consumer.committed("t", [0, 1])
    consumer._consumer.failing = list(denied)
    with pytest.raises(LogError, match="commit offsets of t.*TOPIC_AUTHORIZATION_FAILED"):
        consumer.commit("t", {0: 7, 1: 8})
