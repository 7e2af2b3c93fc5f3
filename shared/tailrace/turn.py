"""All records of one interaction: what :mod:`tailrace.explain` and :mod:`tailrace.why` tell from.

The id leads to the partition of the session topics and to the time from which that is read. Of a
prompt the first record counts, of an answer the first of each choice, of a trajectory the first of
its id: senders repeat themselves after a crash.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tailrace import events, ids, topics
from tailrace.errors import InvalidRecord
from tailrace.events import Feedback, Output, Prompt, Receipt, Trajectory, parameter
from tailrace.log.base import Log, LogRecord
from tailrace.partition import partition_of
from tailrace.stream import Decoder, read_all
from tailrace.topics import Topic, named

SKEW_MS = 3600 * 1000
"""How far the clock that made an id may be ahead of the broker's."""


class Records(NamedTuple):
    """What the log has of one interaction, each event with the record that it came in."""

    interaction: str
    prompt: tuple[LogRecord, Prompt] | None
    outputs: dict[int, tuple[LogRecord, Output]]
    """By choice, in that order."""
    feedback: list[tuple[LogRecord, Feedback]]
    """About it or its session, in the order of the log."""
    trajectories: dict[str, tuple[LogRecord, Trajectory]]
    """By id; by choice, oldest revision first."""
    receipts: list[tuple[LogRecord, Receipt]]
    """Of its session, in the order of the log."""
    expired: list[str]
    """Topics that have no record older than the interaction any more, and may have lost some of
    it."""


def read(log: Log, decoder: Decoder, interaction: str, *, prefix: str = "") -> Records:
    """Read everything about an interaction.

    Raises ValueError for what is no interaction id or is not on the log, LogError.
    """
    session = ids.session_of(interaction)
    if not ids.is_interaction(interaction) or "!" in interaction:
        raise ValueError(f"{interaction!r} is no id of an interaction")
    reader = Reader(log, decoder, session, ids.turn_time_ms(interaction) - SKEW_MS, prefix=prefix)
    prompt = next(
        (
            (record, event)
            for record, event in reader.read(topics.PROMPTS)
            if isinstance(event, Prompt) and event.interaction_id == interaction
        ),
        None,
    )
    outputs: dict[int, tuple[LogRecord, Output]] = {}
    count = None if prompt is None else _choices(prompt[1])
    for record, event in reader.read(topics.OUTPUTS):
        if isinstance(event, Output) and event.interaction_id == interaction:
            outputs.setdefault(event.choice, (record, event))
            if len(outputs) == count:
                break
    feedback = [
        (record, event)
        for record, event in reader.read(topics.FEEDBACK)
        if isinstance(event, Feedback) and _is_about(event, interaction, session)
    ]
    trajectories: dict[str, tuple[LogRecord, Trajectory]] = {}
    for record, event in reader.read(topics.TRAJECTORIES):
        if isinstance(event, Trajectory) and event.interaction_id == interaction:
            trajectories.setdefault(event.trajectory_id, (record, event))
    found = {"prompts": prompt is not None, "outputs": len(outputs) == (count or 1)}
    expired = [t for t in reader.expired(ids.turn_time_ms(interaction)) if not found.get(t)]
    if prompt is None and not outputs and not trajectories:
        gone = f"; of its time nothing is kept of {', '.join(expired)}" if expired else ""
        raise ValueError(f"nothing of {interaction!r} is on the log{gone}")
    ordered = sorted(trajectories.items(), key=lambda item: _order(item[1][1]))
    receipts = [
        (record, event)
        for record, event in reader.read(topics.RECEIPTS)
        if isinstance(event, Receipt)
    ]
    return Records(
        interaction=interaction,
        prompt=prompt,
        outputs={choice: outputs[choice] for choice in sorted(outputs)},
        feedback=feedback,
        trajectories=dict(ordered),
        receipts=receipts,
        expired=expired,
    )


class Reader:
    """One session's partition of the session topics, from a time on."""

    def __init__(
        self, log: Log, decoder: Decoder, session: str, since_ms: int, *, prefix: str = ""
    ) -> None:
        self._log = log
        self._decoder = decoder
        self._prefix = prefix
        self._key = session.encode()
        self._since_ms = max(0, since_ms)

    def read(self, topic: Topic) -> Iterator[tuple[LogRecord, events.Struct]]:
        """What can be read there; the rest is in ``dead-letters``."""
        name = named(topic, self._prefix)
        partition = partition_of(self._key, self._log.partitions(name))
        starts = self._log.offsets_at(name, self._since_ms)
        ends = {partition: self._log.ends(name)[partition]}
        for record in read_all(
            self._log, name, starts=starts, ends=ends, committed_only=topic.transactional
        ):
            # Anybody may have written without a key; the id in the record is what counts.
            if topic is topics.FEEDBACK or record.key == self._key:
                try:
                    yield record, self._decoder.decode(record)
                except InvalidRecord:
                    continue

    def expired(self, time_ms: int) -> list[str]:
        """The session topics that have lost records here and have none left from before a time."""
        found = []
        for topic in (t for t in topics.TOPICS if t.by_session and t is not topics.TICKS):
            name = named(topic, self._prefix)
            partition = partition_of(self._key, self._log.partitions(name))
            start = self._log.starts(name)[partition]
            if 0 < start == self._log.offsets_at(name, time_ms)[partition]:
                found.append(topic.name)
        return found


def _choices(prompt: Prompt) -> int | None:
    """How many answers were asked for. None: that cannot be read."""
    try:
        asked = parameter(prompt.sampling, "n", 1)
    except ValueError:
        return None
    return asked if isinstance(asked, int) else None


def _order(event: Trajectory) -> tuple[int, int]:
    return event.choice, event.revision


def _is_about(event: Feedback, interaction: str, session: str) -> bool:
    if interaction == event.interaction_id:
        return True
    if event.interaction_id is None:
        return event.session_id == session
    if event.preferred_over is None:
        return False
    try:
        return ids.other_answer(event.interaction_id, event.preferred_over)[0] == interaction
    except InvalidRecord:
        return False
