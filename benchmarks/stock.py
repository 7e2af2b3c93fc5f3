"""A fixed stock of simulated users: the same seed asks the same questions in the same order.

They have the demo's manner, but everybody votes and at once. Both sides of
:mod:`benchmarks.learning` are judged by it: ``share`` is how many of the last :data:`WINDOW`
answers the taste likes, whatever thumb was pressed.
"""

from __future__ import annotations

from collections import deque
import random

from services.local.questions import question
from services.local.tastes import TASTES, Manner

WINDOW = 96
TARGET = 0.6
STEP_ANSWERS = 48
LR = 2e-5
STEPS_MAX = 60
"""After so many steps it is given up."""


class Stock:
    """Users with one taste."""

    def __init__(self, seed: int, taste: str = "short") -> None:
        self._taste = TASTES[taste]
        self._asking = random.Random(seed)
        self._voting = random.Random(-1 - seed)
        self._liked: deque[bool] = deque(maxlen=WINDOW)
        self.answers = 0
        """Judged so far."""

    def question(self) -> str:
        """The next question."""
        return question(self._asking)

    def thumb(self, text: str, finished: bool) -> float:
        """1: up, 0: down. ``finished``: the answer ended by itself."""
        liked = self._taste.likes(text, finished)
        self._liked.append(liked)
        self.answers += 1
        wrong = self._voting.random() < Manner().wrong
        return float(liked != wrong)

    @property
    def share(self) -> float:
        """Of the last answers, those that were liked; 0 before there are enough."""
        return sum(self._liked) / WINDOW if len(self._liked) == WINDOW else 0.0

    @property
    def satisfied(self) -> bool:
        """Whether the target is reached."""
        return self.share >= TARGET
