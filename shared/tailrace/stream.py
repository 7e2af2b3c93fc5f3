"""Typed records over a :class:`~tailrace.log.Log`: what services write and read with.

:class:`Writer` gives each record its key and CloudEvents headers; :class:`Decoder` turns log
records back into events, learning schemas from the ``schemas`` topic; :func:`read_all` reads a
fixed range. A record that cannot be decoded goes to ``dead-letters`` (:meth:`Writer.bury`) with its
source and reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
import json
import logging
import time

from prometheus_client import Counter

from tailrace import events, ids, schemas, topics
from tailrace.ends import to_ends
from tailrace.errors import InvalidRecord, MissingTopic, UnknownSchema
from tailrace.log.base import Headers, Log, LogRecord, Position, Producer
from tailrace.topics import MAX_RECORD_BYTES, Topic, named
from tailrace.wire import Wire

_DEAD_LETTER_ROOM_BYTES = 64 * 1024
"""Left beside what is kept of a record for a dead letter's own headers."""
_AGAIN_S = 0.1
_log = logging.getLogger(__name__)

SCHEMAS_ASKED = Counter(
    "tailrace_wire_schemas_asked",
    "Times that the topic of schemas was asked for a fingerprint that was not known",
)


def key_of(record: events.Struct) -> str:
    """The partition key of a record, from its own ids.

    A trainer's receipt is keyed by its trajectory's session, which it does not carry: pass the key.
    """
    match record:
        case events.Prompt() | events.Output() | events.Trajectory():
            return ids.session_of(record.interaction_id)
        case events.Feedback():
            return ids.session_of(record.interaction_id or record.session_id or record.feedback_id)
        case events.Receipt():
            return ids.session_of(record.subject_id)
        case events.ModelAck():
            return record.engine
        case events.Alarm():
            return record.stream
        case events.Tick():
            return str(record.partition)
        case events.Step() | events.ModelUpdate() | events.Release() | events.Command():
            return record.model
        case _:
            raise AssertionError(f"{type(record).__name__} has no key")


def dead_letter(record: LogRecord, reason: str, detail: str = "") -> tuple[bytes | None, Headers]:
    """Value and headers of a dead letter: the original's own, plus where it lay and what is wrong
    with it.

    What would no longer fit a record with that is cut; ``tailrace-truncated`` then says how long
    the value was, the source where the rest is.
    """
    own = {
        "tailrace-reason": reason.encode(),
        "tailrace-detail": detail[:500].encode(),
        "tailrace-source": f"{record.topic}/{record.partition}/{record.offset}".encode(),
        "tailrace-time-ms": str(record.time_ms).encode(),
    }
    kept, value = record.headers, record.value
    room = MAX_RECORD_BYTES - _DEAD_LETTER_ROOM_BYTES - len(record.key or b"")
    if _size_bytes(kept) + len(value or b"") > room:
        kept = kept if _size_bytes(kept) <= _DEAD_LETTER_ROOM_BYTES else {}
        own["tailrace-truncated"] = str(len(value or b"")).encode()
        value = (value or b"")[: max(0, room - _size_bytes(kept))]
    return value, {**kept, **own}


def _size_bytes(headers: Headers) -> int:
    return sum(len(name) + len(value) + 10 for name, value in headers.items())


def event_headers(record: events.Struct, key: str, source: str) -> dict[str, bytes]:
    """The CloudEvents headers of a record, for processes that own their producer."""
    return {
        "ce_specversion": b"1.0",
        "ce_type": f"tailrace.{type(record).__name__}".encode(),
        "ce_source": f"/tailrace/{source}".encode(),
        "ce_id": _event_id(record, key).encode(),
        "content-type": b"application/avro",
    }


class Writer:
    """Appends typed records. ``source`` names the process in the CloudEvents headers."""

    def __init__(
        self, producer: Producer, wire: Wire, *, prefix: str = "", source: str = "tailrace"
    ) -> None:
        self.producer = producer
        self._wire = wire
        self._prefix = prefix
        self._source = source

    def write(
        self,
        topic: Topic,
        record: events.Struct,
        *,
        key: str | None = None,
        partition: int | None = None,
        traceparent: str | None = None,
    ) -> Future[Position]:
        """Queue one record; the future ends with its position.

        Raises InvalidRecord when it does not fit its contract, LogError when it is too large.
        """
        assert topic.record is type(record), f"{type(record).__name__} does not go on {topic.name}"
        key = key_of(record) if key is None else key
        headers = event_headers(record, key, self._source)
        if traceparent:
            headers["traceparent"] = traceparent.encode()
        return self.producer.append(
            named(topic, self._prefix),
            self._wire.encode(record),
            key=key.encode(),
            partition=partition,
            headers=headers,
        )

    def bury(self, record: LogRecord, reason: str, detail: str = "") -> Future[Position]:
        """Put a record that cannot be used on ``dead-letters``, as it came."""
        value, headers = dead_letter(record, reason, detail)
        topic = named(topics.DEAD_LETTERS, self._prefix)
        return self.producer.append(topic, value, key=record.key, headers=headers)


def _event_id(record: events.Struct, key: str) -> str:
    match record:
        case events.Feedback():
            return record.feedback_id
        case events.Trajectory():
            return record.trajectory_id
        case events.Output():
            return f"{record.interaction_id}/{record.choice}"
        case events.Prompt():
            return record.interaction_id
        case events.Receipt(source=source):
            return f"{source.topic}/{source.partition}/{source.offset}/{record.version}"
        case events.Step():
            return f"{key}/{record.version}/{record.step}"
        case events.ModelUpdate():
            return f"{key}/{record.version}"
        case events.Alarm():
            # Several detectors may fire on one record, and one may clear in the same millisecond.
            return f"{key}/{record.event_time_ms}/{record.detector or ''}/{record.state}"
        case events.ModelAck() | events.Release() | events.Command():
            return f"{key}/{record.event_time_ms}"
        case _:
            return key


class Decoder:
    """Decodes log records by their topic. Meets an unknown fingerprint by reading ``schemas``
    on.

    A producer publishes its schema before its first record. So whoever asked ``schemas`` has heard
    of every record that was on the log by then: those of an unknown fingerprint ask once for all of
    them, and again, in case somebody was late, ten times a second at most. A record that came after
    that, or that is read a second time, always asks. ``clock``: seconds, monotonic.
    """

    def __init__(
        self,
        log: Log,
        wire: Wire,
        *,
        prefix: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._wire = wire
        self._prefix = prefix
        self._clock = clock
        self._read: dict[int, int] = {}
        """Up to where ``schemas`` was read."""
        self._asked_s = clock()
        self._asked: dict[tuple[str, int], tuple[int, int]] = {}
        """By topic and partition: the newest record that was not known, and where the log ended
        when ``schemas`` was asked for one."""

    def decode(self, record: LogRecord) -> events.Struct:
        """The event. Raises InvalidRecord (UnknownSchema when even now nobody published it)."""
        kind = topics.by_name(record.topic, self._prefix).record
        assert kind is not None, f"{record.topic} holds raw bytes"
        try:
            return self._wire.decode(kind, record.value, record.headers, time_ms=record.time_ms)
        except UnknownSchema:
            if self._answered(record):
                raise
            self._ask(record)
        return self._wire.decode(kind, record.value, record.headers, time_ms=record.time_ms)

    def _answered(self, record: LogRecord) -> bool:
        """Whether ``schemas`` was asked after this record was appended, and just now."""
        place = record.topic, record.partition
        newest, end = self._asked.get(place, (-1, 0))
        if not newest < record.offset < end or self._clock() - self._asked_s >= _AGAIN_S:
            return False
        self._asked[place] = record.offset, end
        return True

    def _ask(self, record: LogRecord) -> None:
        try:
            ends = self._log.ends(record.topic)  # before ``schemas`` is asked, not after
        except MissingTopic:
            ends = {}
        asked_s = self._clock()
        self._learn()
        # Only now: other threads may decode meanwhile.
        self._asked |= {(record.topic, partition): (-1, end) for partition, end in ends.items()}
        if record.partition in ends:
            self._asked[record.topic, record.partition] = record.offset, ends[record.partition]
        self._asked_s = asked_s

    def _learn(self) -> None:
        SCHEMAS_ASKED.inc()
        topic = named(topics.SCHEMAS, self._prefix)
        ends = self._log.ends(topic)
        if ends == self._read:
            return
        for record in read_all(self._log, topic, starts=self._read, ends=ends):
            if record.value is None:
                continue
            try:
                self._wire.learn(record.value)
            except InvalidRecord as error:
                # Anyone may write there; the schema that is looked for may still follow.
                where = f"{topic}/{record.partition}/{record.offset}"
                _log.warning("schema skipped source=%s reason=%s", where, error)
        self._read = ends


def publish_schemas(log: Log, *, prefix: str = "") -> None:
    """Put every schema that this distribution writes on ``schemas``, where it is not there yet.

    A producer calls this before its first record. Raises LogError.
    """
    topic = named(topics.SCHEMAS, prefix)
    known = {record.key for record in read_all(log, topic)}
    wanted = {}
    for record in events.RECORDS:
        schema = schemas.newest(record.__name__)
        mark = schemas.fingerprint(schema).hex().encode()
        if mark not in known:
            wanted[mark] = json.dumps(schema).encode()
    if not wanted:
        return
    producer = log.producer()
    try:
        for mark, text in wanted.items():
            producer.append(topic, text, key=mark)
        producer.flush()
    finally:
        producer.close()


def read_all(
    log: Log,
    topic: str,
    *,
    starts: Mapping[int, int] | None = None,
    ends: Mapping[int, int] | None = None,
    committed_only: bool = False,
) -> Iterator[LogRecord]:
    """Every record of a topic from ``starts`` (default: the low watermarks) to ``ends`` (default:
    now).

    In order within a partition. Raises LogError when it stalls, see :mod:`tailrace.ends`.
    """
    low = log.starts(topic)
    ends = log.ends(topic) if ends is None else ends
    at = {p: max(low[p], (starts or {}).get(p, 0)) for p in low}
    open_partitions = {p for p in at if at[p] < ends.get(p, 0)}
    if not open_partitions:
        return
    consumer = log.consumer(committed_only=committed_only)
    try:
        consumer.assign({(topic, p): at[p] for p in open_partitions})
        for records in to_ends(consumer, {(topic, p): ends[p] for p in open_partitions}):
            yield from (r for r in records if r.offset < ends[r.partition])
    finally:
        consumer.close()
