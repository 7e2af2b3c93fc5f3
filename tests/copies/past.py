"""Histories on a log in memory, as the gateway and the rewards would leave them there."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from services.rewards.emission import Send
from services.rewards.offline import Read, run
from services.rewards.spec import Spec
from tailrace import events, topics
from tailrace.errors import InvalidRecord
from tailrace.log.base import Log, LogRecord
from tailrace.log.memory import MemoryLog, _Entry
from tailrace.replaying.plan import begin, copy_schemas, time_of
from tailrace.replaying.replayer import Replayer
from tailrace.replaying.stretch import planned
from tailrace.stream import Decoder, Writer, key_of, publish_schemas, read_all
from tailrace.wire import Wire
from tests.rewards.history import KINDS, START_MS, History


class Clock:
    """Append times."""

    def __init__(self) -> None:
        self.now_ms = START_MS - 1000

    def __call__(self) -> int:
        return self.now_ms


def lay(history: History, session_partitions: int = 1, prefix: str = "") -> MemoryLog:
    """A history on a log; control records where it has holes."""
    clock = Clock()
    log, wire = MemoryLog(clock), Wire()
    log.create(topics.TOPICS, prefix=prefix, session_partitions=session_partitions)
    publish_schemas(log, prefix=prefix)
    producer = log.producer()
    for kind in KINDS:
        for item in history.logs[kind]:
            if item is None:
                hole(log, prefix + kind)
                continue
            clock.now_ms = item.record.time_ms
            key = key_of(item.event).encode()
            producer.append(prefix + kind, wire.encode(item.event), key=key, partition=0)
    return log


def hole(log: MemoryLog, topic: str, partition: int = 0) -> None:
    """A control record."""
    place = log._topics[topic][partition].entries
    record = LogRecord(
        topic=topic,
        partition=partition,
        offset=len(place),
        time_ms=log._clock_ms(),
        key=None,
        value=None,
        headers={},
    )
    place.append(_Entry(record, "control"))


def replayed(log: Log, source: str, prefix: str, **asked: object) -> Replayer:
    """A replay that is ready to run."""
    plan = planned(log, source, now_ms=START_MS + 10**9, **asked)  # type: ignore[arg-type]
    begin(log, prefix, plan)
    copy_schemas(log, source, prefix)
    return Replayer(log, plan, prefix)


def rewarded(log: Log, spec: Spec, prefix: str, *, copy: bool) -> list[Send]:
    """The trajectories and receipts that rewards make of the first partition of a prefix."""
    partitions = log.partitions(f"{prefix}prompts")
    decoder = Decoder(log, Wire(), prefix=prefix)

    def reads(kind: str) -> Iterator[Read]:
        only = {p: 10**9 if p == 0 else 0 for p in range(partitions)}
        ends = {p: min(end, only[p]) for p, end in log.ends(prefix + kind).items()}
        for record in read_all(log, prefix + kind, ends=ends):
            time_ms = time_of(record.time_ms, record.headers, by_header=copy)
            record = msgspec.structs.replace(record, time_ms=time_ms)
            event: events.Struct | InvalidRecord
            try:
                event = decoder.decode(record)
            except InvalidRecord as error:
                event = error
            yield record, event

    sent = run(spec, 0, partitions, {kind: reads(kind) for kind in KINDS})
    return [item for item in sent if isinstance(item, Send)]


def decide(log: Log, prefix: str, spec: Spec, *, copy: bool = False) -> None:
    """Put on the log what rewards make of the first partition of a prefix."""
    writer = Writer(log.producer(), Wire(), prefix=prefix)
    for item in rewarded(log, spec, prefix, copy=copy):
        is_receipt = isinstance(item.record, events.Receipt)
        topic = topics.RECEIPTS if is_receipt else topics.TRAJECTORIES
        writer.write(topic, item.record, key="k", partition=0)


def trajectories(sent: list[Send]) -> list[bytes]:
    return sorted(
        msgspec.msgpack.encode(item.record)
        for item in sent
        if isinstance(item.record, events.Trajectory)
    )


def values(log: Log, topic: str) -> list[tuple[int, bytes | None, bytes | None, dict[str, bytes]]]:
    """Partition, key, value and headers of every record."""
    return [(r.partition, r.key, r.value, r.headers) for r in read_all(log, topic)]
