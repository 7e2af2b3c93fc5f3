"""What :mod:`services.gateway.capture` moves: a record and who waits for it."""

from __future__ import annotations

import asyncio
from collections import deque
import logging
from typing import TypeVar

import msgspec

from services.gateway import metrics
from tailrace import events, topics
from tailrace.errors import InvalidRecord, TailraceError, TooLarge
from tailrace.topics import Topic

log = logging.getLogger(__name__)
R = TypeVar("R", bound=events.Struct)
LOST = "capture_lost"
_MOST = 100_000


class SpoolFull(TailraceError):
    """There is no room for this feedback anywhere: the client must come again."""


class Event(msgspec.Struct):
    """A record on its way. ``kept`` is told when it is durable."""

    topic: Topic
    record: events.Struct
    bytes: int
    """What it takes of the queue."""
    traceparent: str | None = None
    kept: asyncio.Future[None] | None = None
    to_spool: bool = False

    def settle(self, error: TailraceError | None = None) -> None:
        """Tell who waits for it, unless they have left."""
        if self.kept is None or self.kept.done():
            return
        if error is None:
            self.kept.set_result(None)
        else:
            self.kept.set_exception(error)


class Losses:
    """Records that had no room: counted; prompts and outputs are kept without their content."""

    def __init__(self) -> None:
        self.stubs: deque[Event] = deque(maxlen=_MOST)
        """To be sent once there is room again."""
        self._interactions: dict[str, None] = {}

    def give_up(self, event: Event, error: InvalidRecord | TooLarge) -> None:
        """The log will never take this record: a stub of it, if that is less. Who waits is told."""
        reason = error.reason if isinstance(error, InvalidRecord) else "too_large"
        log.error("record given up topic=%s error=%s", event.topic.name, error)
        if event.topic is topics.FEEDBACK or getattr(event.record, "content", None) is None:
            metrics.LOST.labels(event.topic.name, reason).inc()
        else:
            self.lose(event, reason)
        event.settle(InvalidRecord(reason, str(error)))

    def lose(self, event: Event, reason: str) -> None:
        """Count a prompt or output, and keep what is left of it."""
        record, topic = event.record, event.topic
        assert isinstance(record, events.Prompt | events.Output)
        metrics.LOST.labels(topic.name, reason).inc()
        self._interactions[record.interaction_id] = None
        if len(self._interactions) > _MOST:
            self._interactions.pop(next(iter(self._interactions)))
        if len(self.stubs) == _MOST:
            metrics.LOST.labels(topic.name, "stub").inc()
        self.stubs.append(event_of(topic, stub(record), event.traceparent))

    def bare(self, record: R) -> R:
        """The record; an output without content when something of its interaction was lost."""
        if isinstance(record, events.Output) and record.interaction_id in self._interactions:
            return stub(record)
        return record


def stub(record: R) -> R:
    """A record without its content: all that can be kept of it."""
    if isinstance(record, events.Output):
        return msgspec.structs.replace(record, content=None, untrainable=LOST)
    return msgspec.structs.replace(record, content=None)


def event_of(topic: Topic, record: events.Struct, traceparent: str | None) -> Event:
    """A record for the queue, with about how many bytes it takes in memory."""
    size = 1024
    content = getattr(record, "content", None)
    for name in content.__struct_fields__ if content is not None else ():
        size += len(getattr(content, name) or b"")
    return Event(topic, record, size, traceparent)
