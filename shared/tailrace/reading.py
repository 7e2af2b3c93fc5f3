"""Read a topic as typed events: watch it, or replay a stretch of it.

    for record, event in tailrace.read("feedback", since="1h"):        # to the end of now
    for record, event in tailrace.read("alarms", follow=True):          # for ever
    for record, event in tailrace.read("outputs", since="2026-11-20T12:00Z", until="5m"):

Order holds within a partition only. Nothing is committed: every reader sees everything.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
import re
import time
from typing import Any

import msgspec

from tailrace import events, topics
from tailrace.errors import InvalidRecord
from tailrace.log.base import Log, LogRecord
from tailrace.packing import unpack_ids, unpack_logprobs
from tailrace.stream import Decoder, read_all
from tailrace.topics import Topic, named
from tailrace.wire import Wire

Item = tuple[LogRecord, events.Struct | InvalidRecord | None]
"""A record and what it says: an event; why it cannot be read; None where values are raw bytes."""

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def read(
    topic: str,
    *,
    kafka: str = "127.0.0.1:9092",
    since: str | int | None = None,
    until: str | int | None = None,
    follow: bool = False,
    prefix: str = "",
    registry: str | None = None,
    log: Log | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Item]:
    """Every record of ``topic`` (its name without prefix), by append time.

    ``since`` and ``until``: ``"10m"`` (s, m, h, d ago; ``"-10m"`` too), an ISO 8601 time,
    milliseconds since 1970; ``since`` None: from the oldest record, or, when following, from now.
    ``follow`` goes on past the end until ``stop()``. ``log`` stands in for ``kafka``, and is not
    closed.

    Raises ValueError for an unknown topic or time, LogError when the broker does not answer.
    """
    row = topic_named(topic)
    own_log = log is None
    if log is None:
        from tailrace.log.kafka import KafkaLog

        log = KafkaLog(kafka)
    try:
        yield from _read(log, row, since, until, follow, prefix, registry, stop)
    finally:
        if own_log:
            log.close()


def _read(
    log: Log,
    row: Topic,
    since: str | int | None,
    until: str | int | None,
    follow: bool,
    prefix: str,
    registry: str | None,
    stop: Callable[[], bool],
) -> Iterator[Item]:
    name = named(row, prefix)
    now_ms = time.time_ns() // 1_000_000
    decoder = Decoder(log, Wire(registry), prefix=prefix)
    committed_only = row.transactional
    if since is not None:
        starts = log.offsets_at(name, moment_ms(since, now_ms))
    else:
        starts = log.ends(name) if follow else log.starts(name)
    if not follow:
        ends = log.ends(name) if until is None else log.offsets_at(name, moment_ms(until, now_ms))
        for record in read_all(log, name, starts=starts, ends=ends, committed_only=committed_only):
            yield record, _event(decoder, row, record)
        return
    consumer = log.consumer(committed_only=committed_only)
    try:
        consumer.assign({(name, partition): at for partition, at in starts.items()})
        while not stop():
            for record in consumer.poll(0.5):
                yield record, _event(decoder, row, record)
    finally:
        consumer.close()


def _event(decoder: Decoder, row: Topic, record: LogRecord) -> events.Struct | InvalidRecord | None:
    if row.record is None:
        return None
    try:
        return decoder.decode(record)
    except InvalidRecord as error:
        return error


def topic_named(name: str) -> Topic:
    """The row of a topic's bare name. Raises ValueError that lists the names there are."""
    try:
        return topics.by_name(name)
    except KeyError:
        known = ", ".join(t.name for t in topics.TOPICS)
        raise ValueError(f"no topic {name!r}; there are {known}") from None


def moment_ms(moment: str | int, now_ms: int) -> int:
    """Milliseconds since 1970 of a moment as :func:`read` takes it. Raises ValueError.

    >>> moment_ms("10m", 3_600_000), moment_ms("-10m", 3_600_000)
    (3000000, 3000000)
    >>> moment_ms("1970-01-01T00:00:01Z", 0)
    1000
    """
    if isinstance(moment, int):
        return moment
    if ago := re.fullmatch(r"-?(\d+)([smhd])", moment):
        return now_ms - int(ago[1]) * _UNITS_S[ago[2]] * 1000
    if moment.isdigit():
        return int(moment)
    try:
        when = datetime.fromisoformat(moment)
    except ValueError:
        raise ValueError(
            f"{moment!r} is no time: 10m (ago), 2026-11-20T12:00Z or milliseconds"
        ) from None
    return int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1000)


def as_document(item: Item) -> dict[str, Any]:
    """A record as a JSON-ready object: where it lies, when it came, what it says.

    Token ids and logprobs are unpacked to lists, other bytes are base64.
    """
    record, event = item
    document: dict[str, Any] = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "time": _time(record.time_ms),
        "key": record.key.decode(errors="replace") if record.key is not None else None,
    }
    if isinstance(event, InvalidRecord):
        document["invalid"] = {"reason": event.reason, "detail": str(event)}
    elif event is not None:
        document["event"] = _readable(msgspec.to_builtins(event, builtin_types=(bytes,)))
        return document
    document["headers"] = {k: v.decode(errors="replace") for k, v in record.headers.items()}
    document["bytes"] = len(record.value or b"")
    return document


def _time(time_ms: int) -> str:
    try:
        return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return str(time_ms)  # as its writer said it, on a topic without append times


def _readable(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return {k: _readable(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [_readable(v) for v in value]
    if not isinstance(value, bytes):
        return value
    try:
        if name.endswith(("token_ids", "_tokens")):
            return unpack_ids(value)
        if name == "logprobs":
            return [round(v, 6) for v in unpack_logprobs(value)]
    except ValueError:
        pass
    return base64.b64encode(value).decode()
