"""A grader whose worker grades when and as it is told, on a log in memory with a clock."""

from __future__ import annotations

from collections.abc import Callable
import time
from typing import Any

from services.graders.grader import Grader
from services.graders.item import Item, Verdict
from services.graders.pairing import Pairing
from services.graders.spec import Function
from services.graders.worker import Answers
from tailrace.log.base import Log
from tailrace.log.memory import MemoryLog
from tailrace.stream import Decoder, Writer
from tests.graders.scene import NOW_MS, WIRE, Room


class ByHand:
    """A worker that grades when and as it is told."""

    def __init__(self, answers: Answers, room: int = 100) -> None:
        self.room, self.answers = room, answers
        self.items: list[Item] = []

    def give(self, item: Item) -> None:
        self.items.append(item)

    def say(self, number: float | None = 0.5, reason: str | None = None, at: int = 0) -> Item:
        item = self.items.pop(at)
        self.answers.put(item, Verdict(number, reason))
        return item

    def close(self) -> None:
        """Nothing runs."""


class Scene:
    """A room, a clock and a grader that can be started again. ``log``: another one, on which the
    time is what it is."""

    def __init__(self, log: Log | None = None, prefix: str = "", **spec: Any) -> None:
        self.now_ms = NOW_MS if log is None else time.time_ns() // 1_000_000
        self.log = log or MemoryLog(lambda: self.now_ms)
        self.prefix = prefix
        self.room = Room(self.log, prefix)
        self.spec = Function(file="x.py", function="reward", metric="polite", **spec)
        self.start()

    def start(
        self,
        reached: Callable[[int], None] = lambda step: None,
        room: int = 100,
        pairing: Pairing | None = None,
    ) -> None:
        answers = Answers()
        self.worker = ByHand(answers, room)
        self.grader = Grader(
            "polite",
            self.spec,
            "0123456789ab",
            self.worker,
            answers,
            self.log,
            Decoder(self.log, WIRE, prefix=self.prefix),
            Writer(self.log.producer(), WIRE, prefix=self.prefix),
            prefix=self.prefix,
            pairing=pairing,
            clock_ms=lambda: self.now_ms,
            reached=reached,
        )

    def step(self, rounds: int = 3, timeout_s: float = 0.0) -> None:
        for _ in range(rounds):
            self.grader.step(timeout_s)
