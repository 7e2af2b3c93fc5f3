"""The topics that there are, beside those that there should be: ``tailrace topics``.

In: the table (:mod:`tailrace.topics`), the log, and the settings that its brokers have for each
topic, where somebody can ask them. Out: a row for each topic of the table, with what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from tailrace import topics
from tailrace.errors import MissingTopic
from tailrace.log.base import Log
from tailrace.topics import DAY_MS, Topic, named

Ask = Callable[[list[str]], Mapping[str, Mapping[str, str]]]
"""The settings of topics, by full name."""
WRITERS = {
    "prompts": "gateway, rollouts",
    "outputs": "gateway, rollouts",
    "feedback": "gateway, graders, rollouts, anyone",
    "trajectories": "rewards",
    "receipts": "rewards, trainer",
    "ticks": "rewards",
    "steps": "trainer",
    "model-updates": "trainer",
    "model-chunks": "trainer",
    "model-acks": "engine",
    "releases": "releases",
    "alarms": "drift, trainer",
    "control": "people",
    "schemas": "every producer",
    "dead-letters": "every consumer",
}


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One topic of the table."""

    topic: str
    """Without the prefix."""
    exists: bool
    record: str | None
    """What its values are. None: raw bytes."""
    key: str
    """What its records are keyed by."""
    writers: str
    """Who writes there."""
    partitions: int | None
    offsets: int | None
    """How many there are, marks of transactions included. A log does not say bytes."""
    kept_ms: int | None
    """How long its records are kept. None: for ever, or the newest of each key."""
    compacted: bool
    """Of each key the newest is kept."""
    problems: list[str]
    """What is not as it should be. How long the records of traffic are kept is anybody's choice."""


def gather(log: Log, prefix: str, ask: Ask | None = None) -> list[Row]:
    """A row for each topic, in the table's order. ``ask``: for what the brokers have set; None:
    they cannot be asked. Raises LogError."""
    counts: dict[str, int | None] = {}
    for topic in topics.TOPICS:
        try:
            counts[topic.name] = log.partitions(named(topic, prefix))
        except MissingTopic:
            counts[topic.name] = None
    there = [named(t, prefix) for t in topics.TOPICS if counts[t.name] is not None]
    configs = {} if ask is None else ask(there)
    by_session = (counts[topic.name] for topic in topics.TOPICS if topic.by_session)
    session = next((count for count in by_session if count is not None), None)
    return [
        _row(log, prefix, topic, counts[topic.name], session, configs) for topic in topics.TOPICS
    ]


def _row(
    log: Log,
    prefix: str,
    topic: Topic,
    partitions: int | None,
    session: int | None,
    configs: Mapping[str, Mapping[str, str]],
) -> Row:
    name = named(topic, prefix)
    problems: list[str] = []
    offsets = kept_ms = None
    if partitions is None:
        problems.append("is not there")
    else:
        wanted = session if topic.by_session else 1
        if partitions != wanted:
            like = " as the other topics of sessions" if topic.by_session else ""
            problems.append(f"has {partitions} partitions, must have {wanted}{like}")
        starts, ends = log.starts(name), log.ends(name)
        offsets = sum(ends.values()) - sum(starts.values())
        kept_ms = log.retention_ms(name)
        if topic.cleanup == "delete" and topic.retention_ms is None and kept_ms is not None:
            problems.append(f"is kept {_days(kept_ms)}, must be kept for ever")
        problems += _faults(topic, configs.get(name, {}))
    return Row(
        topic=topic.name,
        exists=partitions is not None,
        record=None if topic.record is None else topic.record.__name__,
        key=topic.key,
        writers=WRITERS[topic.name],
        partitions=partitions,
        offsets=offsets,
        kept_ms=kept_ms,
        compacted=topic.cleanup == "compact",
        problems=problems,
    )


def _faults(topic: Topic, config: Mapping[str, str]) -> list[str]:
    """Settings that are not the table's. More room for a record does no harm."""
    found = []
    for key, wanted in topic.config().items():
        given = config.get(key)
        if key == "retention.ms" or given == wanted or given is None:
            continue
        if key == "max.message.bytes" and int(given) >= int(wanted):
            continue
        found.append(f"{key} is {given}, must be {wanted}")
    return found


def in_words(found: list[Row]) -> list[str]:
    """For people: a line for each topic, then what is wrong."""
    lines = ["topic          record       key          partitions   offsets  kept     written by"]
    for row in found:
        kept = "compact" if row.compacted else _days(row.kept_ms) if row.exists else "-"
        lines.append(
            f"{row.topic:<14} {row.record or 'raw bytes':<12} {row.key:<12} "
            f"{_or_dash(row.partitions):>10} {_or_dash(row.offsets):>9}  {kept:<8} {row.writers}"
        )
    wrong = [f"{row.topic}: {problem}" for row in found for problem in row.problems]
    return [*lines, *(wrong or ["all are there, with the right settings"])]


def _days(kept_ms: int | None) -> str:
    return "for ever" if kept_ms is None else f"{kept_ms / DAY_MS:.3g} d"


def _or_dash(value: int | None) -> str:
    return "-" if value is None else str(value)
