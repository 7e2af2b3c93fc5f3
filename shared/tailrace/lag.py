"""How far each reader of the topics is behind their ends, in records and in time.

In: what consumer groups have committed, and the ranges of the version that is trained on, which are
the trainer's own offsets. Out: a row for each reader and topic. Called by ``tailrace lag``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import time

import msgspec

from tailrace import topics, versions
from tailrace.log.base import Log
from tailrace.seek import records_at
from tailrace.settings import Common
from tailrace.topics import Topic, named
from tailrace.versions import age
from tailrace.wire import Wire

Committed = Mapping[str, Mapping[tuple[str, int], int]]
"""By group: the offset that is read next, of each topic (its full name) and partition."""


class Lag(msgspec.Struct, frozen=True, kw_only=True):
    """One reader of one topic, over the partitions that it has read."""

    reader: str
    """A consumer group, or ``trainer of <model>``."""
    topic: str
    """Without the prefix."""
    partitions: int
    """How many it has read."""
    committed: int
    """Offsets that it has behind it, in all."""
    end: int
    """Where the topic ends, in all."""
    lag: int
    """Offsets that it has not taken yet. Marks of transactions count, but not where nothing else is
    left."""
    lost: int
    """Of what it has not taken, offsets that have expired: it never will."""
    behind_s: float
    """How long ago the oldest record was appended that it has not taken. 0: it has taken all."""


def gather(
    log: Log, common: Common, committed: Committed, *, now_ms: int | None = None
) -> list[Lag]:
    """A row for each group and topic of the table, then the trainer's. By name.

    Raises LogError, SettingsError for a key file that is none.
    """
    now_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    found: list[Lag] = []
    for group, places in sorted(committed.items()):
        for topic in topics.TOPICS:
            name = named(topic, common.prefix)
            read = {partition: at for (t, partition), at in places.items() if t == name}
            if read:
                found.append(_row(log, common, group, topic, read, {}, now_ms))
    return [*found, *_trainer(log, common, now_ms)]


def _trainer(log: Log, common: Common, now_ms: int) -> Iterator[Lag]:
    """What the version that is trained on has decided; what it holds back is not taken yet."""
    lineage, releases = versions.read(log, Wire(common.registry), common)
    trained = lineage.served(releases.followed)
    if trained is None:
        return
    read: dict[int, int] = {}
    held: dict[int, list[int]] = {}
    for update in lineage.chain(trained.version):
        for one in update.ranges:
            if one.partition not in read:
                read[one.partition], held[one.partition] = one.end, one.held
    for partition in range(log.partitions(named(topics.TRAJECTORIES, common.prefix))):
        read.setdefault(partition, 0)
    reader = f"trainer of {common.model}"
    yield _row(log, common, reader, topics.TRAJECTORIES, read, held, now_ms)


def _row(
    log: Log,
    common: Common,
    reader: str,
    topic: Topic,
    read: Mapping[int, int],
    held: Mapping[int, list[int]],
    now_ms: int,
) -> Lag:
    name = named(topic, common.prefix)
    starts, ends = log.starts(name), log.ends(name)
    read = {partition: at for partition, at in read.items() if partition in ends}
    waiting: dict[int, int] = {}
    """By partition: where the oldest record may lie that was not taken."""
    lag = lost = 0
    for partition, at in read.items():
        back = [offset for offset in held.get(partition, ()) if offset >= starts[partition]]
        lost += max(0, starts[partition] - at)
        low = max(at, starts[partition])
        lag += max(0, ends[partition] - low) + len(back)
        if back or low < ends[partition]:
            waiting[partition] = min([*back, low])
    spots = {(name, partition, at): partition for partition, at in waiting.items()}
    oldest = records_at(log, spots)
    for spot, partition in spots.items():
        if spot not in oldest:  # marks of transactions are all there is
            lag -= max(0, ends[partition] - spot[2])
    times = [record.time_ms for record in oldest.values()]
    return Lag(
        reader=reader,
        topic=topic.name,
        partitions=len(read),
        committed=sum(read.values()) - sum(len(held.get(partition, ())) for partition in read),
        end=sum(ends[partition] for partition in read),
        lag=lag,
        lost=lost,
        behind_s=max(0.0, (now_ms - min(times)) / 1000) if times else 0.0,
    )


def in_words(found: list[Lag]) -> list[str]:
    """For people, a line for each."""
    if not found:
        return ["nobody has committed anything, and no version is published"]
    width = max(len("reader"), *(len(one.reader) for one in found))
    lines = [f"{'reader':<{width}}  topic         partitions   taken     end     lag  behind"]
    for one in found:
        behind = age(one.behind_s) if one.lag else "-"
        lost = f"  {one.lost} expired unread" if one.lost else ""
        lines.append(
            f"{one.reader:<{width}}  {one.topic:<13} {one.partitions:>10} {one.committed:>7} "
            f"{one.end:>7} {one.lag:>7}  {behind}{lost}"
        )
    return lines
