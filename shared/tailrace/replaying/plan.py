"""What a prefix is a copy of: one JSON record on its ``replay`` topic, and one more at the end.

The topic is in no other prefix, so a reader knows by it whether the original append times in the
headers of a prefix are to be believed. Made by replays and by :mod:`tailrace.archive` (restore).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tailrace import topics
from tailrace.errors import LogError, MissingTopic
from tailrace.log.base import Log
from tailrace.stream import publish_schemas, read_all
from tailrace.topics import Topic, named
from tailrace.wire import Wire

REPLAY = Topic(name="replay", record=None, key="what", retention_ms=None, cleanup="compact")
INPUTS = (topics.PROMPTS, topics.OUTPUTS, topics.FEEDBACK)
COPIED = (*INPUTS, topics.TICKS)
TIME = "tailrace-time-ms"
"""Header: the original append time, in ms."""
SOURCE = "tailrace-source"
"""Header: ``topic/partition/offset`` of the original."""
Offsets = dict[str, dict[int, int]]
"""By the topic's bare name and partition."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a prefix holds, or will."""

    kind: str = "replay"
    """``replay``, or ``restore`` of an archive."""
    source: str
    """The prefix it is copied from; of an archive, its address."""
    partitions: int
    """Of session topics."""
    starts: Offsets = {}
    ends: Offsets = {}
    """The stretch: ``[start, end)`` of each partition."""
    since_ms: int | None = None
    until_ms: int | None = None
    by_header: bool = False
    """The source is itself a copy: its times are those in the headers, and ``since_ms`` and
    ``until_ms`` are held against each record."""
    filters: list[str] = []


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """A replay that came to its end, or how far one is."""

    records: dict[str, int]
    """Records in the target, by topic; ticks are among them."""
    left_out: dict[str, int]
    """Records of the stretch that a filter kept out, by topic."""
    whole: bool = True


def found(log: Log, prefix: str) -> tuple[Plan | None, Done | None]:
    """The plan of a prefix and, once it is whole, its counts; None: it is no copy."""
    plan: Plan | None = None
    done: Done | None = None
    name = named(REPLAY, prefix)
    try:
        for record in read_all(log, name):
            if record.value is None:
                continue
            try:
                if record.key == b"plan":
                    plan = msgspec.json.decode(record.value, type=Plan)
                elif record.key == b"done":
                    done = msgspec.json.decode(record.value, type=Done)
            except msgspec.MsgspecError as error:
                place = f"{name}/{record.partition}/{record.offset}"
                raise LogError(f"{place} is no plan of a copy: {error}") from None
    except MissingTopic:
        pass
    return plan, done


def vacant(log: Log, prefix: str) -> None:
    """Raises ValueError where anything but schemas was ever written under a prefix; LogError."""
    for topic in (REPLAY, *topics.TOPICS):
        if topic is topics.SCHEMAS:
            continue
        name = named(topic, prefix)
        try:
            ends = log.ends(name)
        except MissingTopic:
            continue
        if any(ends.values()):
            raise ValueError(
                f"prefix {prefix!r} is taken: {name} holds records, or has held some"
                + (" (--resume goes on with a copy)" if topic is REPLAY else "")
            )


def begin(log: Log, prefix: str, plan: Plan) -> None:
    """Make the topics of a copy, with the plan of it. Raises LogError."""
    rows = (*topics.TOPICS, REPLAY)
    log.create(rows, prefix=prefix, session_partitions=plan.partitions)
    count = log.partitions(named(topics.PROMPTS, prefix))
    if count != plan.partitions:
        raise LogError(f"{prefix}prompts has {count} partitions, the original {plan.partitions}")
    _put(log, prefix, b"plan", msgspec.json.encode(plan))


def end(log: Log, prefix: str, done: Done) -> None:
    """Say that a copy is whole. Raises LogError."""
    _put(log, prefix, b"done", msgspec.json.encode(done))


def copy_schemas(log: Log, source: str, prefix: str, registry: str | None = None) -> None:
    """Put on ``schemas`` what is needed to read the copy. Raises LogError."""
    if registry is not None:
        Wire(registry)
        return
    target = named(topics.SCHEMAS, prefix)
    known = {record.key for record in read_all(log, target)}
    producer = log.producer()
    try:
        for record in read_all(log, named(topics.SCHEMAS, source)):
            if record.value is not None and record.key not in known:
                producer.append(target, record.value, key=record.key)
        producer.flush()
    finally:
        producer.close()
    publish_schemas(log, prefix=prefix)


def time_of(time_ms: int, headers: Mapping[str, bytes], *, by_header: bool) -> int:
    """When a record was appended first."""
    said = headers.get(TIME, b"")
    return int(said) if by_header and said.isdigit() else time_ms


def _put(log: Log, prefix: str, key: bytes, value: bytes) -> None:
    producer = log.producer()
    try:
        producer.append(named(REPLAY, prefix), value, key=key)
        producer.flush()
    finally:
        producer.close()
