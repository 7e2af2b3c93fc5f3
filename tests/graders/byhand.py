"""A grader whose worker grades when and as it is told, on a log in memory with a clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from services.graders.grader import Grader
from services.graders.item import Item, Verdict
from services.graders.pairing import Pairing
from services.graders.spec import Function
from services.graders.worker import Answers
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
    """A room, a clock and a grader that can be started again."""

    def __init__(self, **spec: Any) -> None:
        self.now_ms = NOW_MS
        self.log = MemoryLog(lambda: self.now_ms)
        self.room = Room(self.log)
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
            Decoder(self.log, WIRE),
            Writer(self.log.producer(), WIRE),
            pairing=pairing,
            clock_ms=lambda: self.now_ms,
            reached=reached,
        )

    def step(self, rounds: int = 3) -> None:
        for _ in range(rounds):
            self.grader.step(0.0)
