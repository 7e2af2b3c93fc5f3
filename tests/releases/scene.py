"""A log with versions and people who order, for the tests of the releases service."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from services.releases.desk import Desk
from tailrace import topics
from tailrace.events import Command, ModelUpdate, Release
from tailrace.log.base import Log
from tailrace.stream import Decoder, Writer, read_all
from tailrace.topics import named
from tailrace.wire import Wire
from tests.engine.models import MODEL, Trainer

NOW_MS = 1_700_000_000_000


class Scene:
    """One log, its versions, and desks one after the other."""

    def __init__(self, log: Log, prefix: str = "") -> None:
        self.log, self.prefix = log, prefix
        self.trainer = Trainer(log, prefix)
        self._desks: list[Desk] = []

    def versions(self, count: int) -> list[ModelUpdate]:
        """So many more versions: a keyframe, then deltas."""
        head = self.trainer.publisher.head()
        first = 0 if head is None else head.version + 1
        numbers = range(first, first + count)
        return [self.trainer.delta(v) if v else self.trainer.keyframe(v) for v in numbers]

    def order(self, command: str, version: int | None = None, **more: Any) -> int:
        """Where the order lies on control."""
        producer = self.log.producer()
        values = {"model": MODEL, "event_time_ms": NOW_MS, "principal": "ops"} | more
        record = Command(command=command, version=version, **values)
        writer = Writer(producer, Wire(), prefix=self.prefix)
        position = writer.write(topics.CONTROL, record).result(10)
        producer.close()
        return position.offset

    def desk(self, crash: Callable[[str], None] = lambda point: None) -> Desk:
        made = Desk(
            self.log,
            Wire(),
            model=MODEL,
            prefix=self.prefix,
            wall_ms=lambda: NOW_MS,
            crash=crash,
        )
        self._desks.append(made)
        return made

    def releases(self) -> list[Release]:
        decoder = Decoder(self.log, Wire(), prefix=self.prefix)
        name = named(topics.RELEASES, self.prefix)
        return [decoder.decode(r) for r in read_all(self.log, name, committed_only=True)]  # type: ignore[misc]

    def lose(self, desk: Desk) -> None:
        """As if it had been killed."""
        self._desks.remove(desk)

    def close(self) -> None:
        for desk in self._desks:
            desk.close()
        self.trainer.close()
