"""What :mod:`services.gateway.capture` moves: a record and who waits for it."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TypeVar

import msgspec

from services.gateway import metrics
from tailrace import events
from tailrace.errors import TailraceError
from tailrace.topics import Topic

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
    kept: asyncio.Future[None] | None = None
    traceparent: str | None = None
    to_spool: bool = False


class Losses:
    """Prompts and outputs that had no room: counted, and kept without their content."""

    def __init__(self) -> None:
        self.stubs: deque[tuple[Topic, events.Struct, str | None]] = deque(maxlen=_MOST)
        """To be sent once there is room again."""
        self._interactions: dict[str, None] = {}

    def lose(
        self, topic: Topic, record: events.Struct, reason: str, traceparent: str | None = None
    ) -> None:
        """Count a record and keep what is left of it."""
        assert isinstance(record, events.Prompt | events.Output)
        metrics.LOST.labels(topic.name, reason).inc()
        self._interactions[record.interaction_id] = None
        if len(self._interactions) > _MOST:
            self._interactions.pop(next(iter(self._interactions)))
        if len(self.stubs) == _MOST:
            metrics.LOST.labels(topic.name, "stub").inc()
        self.stubs.append((topic, stub(record), traceparent))

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


def size_of(record: events.Struct) -> int:
    """About how many bytes a record takes in memory."""
    size = 1024
    content = getattr(record, "content", None)
    for name in content.__struct_fields__ if content is not None else ():
        size += len(getattr(content, name) or b"")
    return size
