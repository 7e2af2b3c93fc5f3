"""Engines that obey the log at once, and a clock that lets everybody have a turn: for who waits for
them."""

from __future__ import annotations

import time
from typing import Any

from tailrace import topics
from tailrace.events import ModelAck
from tailrace.log.base import Log
from tailrace.orders import Orders, Outcome
from tailrace.settings import Common
from tailrace.stream import Writer
from tailrace.weights.releases import Releases
from tailrace.weights.subscriber import Subscriber
from tailrace.wire import Wire
from tests.engine.models import MODEL
from tests.releases.scene import Scene


class Engine:
    """Serves what the log says at once, and acks it, unless it is told to be away or to refuse."""

    def __init__(self, scene: Scene, name: str) -> None:
        place = {"model": MODEL, "prefix": scene.prefix}
        self.name, self.serves = name, None
        self.away, self.refuses = False, False
        self._producer = scene.log.producer()
        self._writer = Writer(self._producer, Wire(), prefix=scene.prefix)
        self._subscriber = Subscriber(scene.log, Wire(), **place)
        self._releases = Releases(scene.log, Wire(), **place)

    def turn(self) -> None:
        if self.away:
            return
        self._subscriber.catch_up()
        self._releases.poll()
        served = self._subscriber.lineage.served(self._releases.newest)
        assert served is not None
        if served.version != self.serves:
            self.serves = served.version
            self.ack("refused" if self.refuses else "applied", served.version)

    def ack(self, state: str, version: int) -> None:
        record = ModelAck(
            engine=self.name, model=MODEL, version=version, event_time_ms=1, state=state
        )
        self._writer.write(topics.MODEL_ACKS, record).result(10)

    def close(self) -> None:
        self._subscriber.close()
        self._releases.close()
        self._producer.close()


class Play:
    """A scene, its engines, and a clock: each time somebody looks at it, everybody has a turn."""

    def __init__(self, log: Log, prefix: str = "") -> None:
        self.scene, self.prefix = Scene(log, prefix), prefix
        self.common = Common(model=MODEL, prefix=prefix)
        self.engines: list[Engine] = []
        self.now_s, self.later_ms = 0.0, 0
        self.desk: Any = None
        self.lines: list[str] = []

    def engine(self, name: str) -> Engine:
        self.engines.append(Engine(self.scene, name))
        self.engines[-1].turn()
        return self.engines[-1]

    def clock(self) -> float:
        self.now_s += 0.5
        if self.desk is not None:
            self.desk.turn(0.2 if self.prefix else 0.0)
        for engine in self.engines:
            engine.turn()
        return self.now_s

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000 + self.later_ms

    def give(self, command: str, version: int | None = None, **more: Any) -> Outcome:
        with Orders(self.scene.log, self.common, clock=self.clock, wall_ms=self.wall_ms) as orders:
            return orders.give(command, version, say=self.lines.append, **more)

    def close(self) -> None:
        for engine in self.engines:
            engine.close()
        self.scene.close()
