"""Who is asked what, and when: the pure core, on an injected clock.

In: readings of the engines, answers, what broke. Out: asks to send, asks to break off, groups that
are whole.

Invariants. At the moment an ask is given out, requests in flight at its engine are at most the
share of the slots that live traffic leaves, and at most what the engine's pace bears, by a reading
no older than :data:`STALE_MS`. A group is whole or dropped; samples are given out in order, the
oldest group first. No group is opened while one that is whole is not yet acknowledged. Called by
:mod:`.rollouts`, for one thread.
"""

from __future__ import annotations

from collections.abc import Container
import itertools

import msgspec

from services.rollouts.answer import Answer
from services.rollouts.pace import Pace
from services.rollouts.schedule import Item, Schedule
from services.rollouts.share import SETTLED_MS, Load, allowed

STALE_MS = 2_000
"""A reading that is older allows nothing."""
_TRIES = 3
"""How often an answer is asked for; then its group is dropped."""
_PAUSES_MS = (1_000, 2_000, 4_000, 8_000, 16_000, 30_000)
"""Without new groups, after so many drops in a row."""
_PATIENCE = 2
"""Readings in a row with live requests waiting, after which ours make room. One alone may be a
swap of weights, which has everything wait for a moment."""


class Ask(msgspec.Struct, frozen=True):
    """One sample of a group, and which engine is to make it."""

    number: int
    sample: int
    engine: str


class Group(msgspec.Struct):
    """Answers to one task that are compared with each other."""

    number: int
    item: Item
    began_ms: int
    answers: list[Answer | None]
    """By sample; None: not there yet."""
    tries: list[int]

    @property
    def whole(self) -> bool:
        """Whether every answer is there."""
        return None not in self.answers


class _Reading(msgspec.Struct, frozen=True):
    at_ms: int
    allowed: int
    yielding: int
    """How many of ours are to make room."""
    crowded: int
    """Readings in a row with live requests waiting."""


class Desk:
    """All open groups. ``done``: numbers that are not used again."""

    def __init__(
        self,
        schedule: Schedule,
        *,
        share: float,
        slots: int,
        group_size: int,
        token_ms: float | None = None,
        done: Container[int] = (),
    ) -> None:
        self.open: dict[int, Group] = {}
        """By number, oldest first."""
        self._schedule, self._share, self._slots = schedule, share, slots
        self._size, self._token_ms = group_size, token_ms
        self._numbers = (number for number in itertools.count() if number not in done)
        self._flight: dict[Ask, int] = {}
        """Since when, oldest first."""
        self._readings: dict[str, _Reading] = {}
        self._paces: dict[str, Pace] = {}
        self._drops, self._resume_ms = 0, 0

    def in_flight(self, engine: str) -> int:
        """Requests of ours at an engine."""
        return sum(ask.engine == engine for ask in self._flight)

    def allowed(self, engine: str, now_ms: int) -> int:
        """How many there may be."""
        reading = self._readings.get(engine)
        fresh = reading is not None and now_ms - reading.at_ms <= STALE_MS
        return reading.allowed if reading is not None and fresh else 0

    def read(self, engine: str, load: Load | None, began_ms: int) -> None:
        """An engine said how busy it is, to a question sent at ``began_ms``; None: it did not."""
        before = self._readings.pop(engine, None)
        if load is None:
            return
        ours = self.in_flight(engine)
        settled = sum(
            ask.engine == engine and since_ms <= began_ms - SETTLED_MS
            for ask, since_ms in self._flight.items()
        )
        if engine not in self._paces:
            self._paces[engine] = Pace(self._token_ms, self._slots)
        pace = self._paces[engine]
        pace.see(load, ours, began_ms)
        room = allowed(load, settled, share=self._share, slots=self._slots)
        live = load.running + load.waiting - ours
        crowded = (before.crowded if before else 0) + 1 if load.waiting and live > 0 else 0
        self._readings[engine] = _Reading(
            at_ms=began_ms,
            allowed=min(room, pace.bound),
            yielding=min(ours, load.waiting) if crowded >= _PATIENCE else 0,
            crowded=crowded,
        )

    def asks(self, now_ms: int) -> list[Ask]:
        """What is to be sent now; it counts as in flight from here."""
        given = []
        while (engine := self._engine(now_ms)) is not None:
            found = self._unasked(now_ms)
            if found is None:
                break
            ask = Ask(*found, engine)
            self._flight[ask] = now_ms
            given.append(ask)
        return given

    def yields(self) -> list[Ask]:
        """What is to be broken off, the newest first: live requests wait for the slots. Also what
        is in flight for groups that are no more."""
        found = [ask for ask in self._flight if ask.number not in self.open]
        for engine, reading in self._readings.items():
            if reading.yielding:
                ours = [ask for ask in reversed(self._flight) if ask.engine == engine]
                found += [ask for ask in ours[: reading.yielding] if ask not in found]
                self._readings[engine] = msgspec.structs.replace(reading, yielding=0)
        return found

    def answered(self, ask: Ask, answer: Answer) -> Group | None:
        """An answer came; its group, where that made it whole."""
        self._flight.pop(ask)
        group = self.open.get(ask.number)
        if group is None:
            return None
        group.answers[ask.sample] = answer
        return group if group.whole else None

    def returned(self, ask: Ask) -> None:
        """An ask was broken off: it is given out again."""
        self._flight.pop(ask)

    def broke(self, ask: Ask, *, final: bool) -> bool:
        """An ask failed. Whether its group must be dropped: it was ``final``, or the last try."""
        self._flight.pop(ask)
        group = self.open.get(ask.number)
        if group is None:
            return False
        group.tries[ask.sample] += 1
        return final or group.tries[ask.sample] >= _TRIES

    def drop(self, number: int, now_ms: int) -> None:
        """Give a group up. Its number is not used again."""
        del self.open[number]
        if now_ms < self._resume_ms:
            return  # of the same trouble as the one that made the pause
        pause_ms = _PAUSES_MS[min(self._drops, len(_PAUSES_MS) - 1)]
        self._drops, self._resume_ms = self._drops + 1, now_ms + pause_ms

    def acknowledged(self, number: int) -> None:
        """A whole group lies on the log."""
        del self.open[number]
        self._drops = 0

    def _engine(self, now_ms: int) -> str | None:
        """The one with the most room."""
        room = {name: self.allowed(name, now_ms) - self.in_flight(name) for name in self._readings}
        best = max(sorted(room), key=lambda name: room[name], default=None)
        return best if best is not None and room[best] > 0 else None

    def _unasked(self, now_ms: int) -> tuple[int, int] | None:
        flying = {(ask.number, ask.sample) for ask in self._flight}
        for group in self.open.values():
            for sample, answer in enumerate(group.answers):
                if answer is None and (group.number, sample) not in flying:
                    return group.number, sample
        waits = any(group.whole for group in self.open.values())
        if waits or now_ms < self._resume_ms:
            return None
        number = next(self._numbers)
        item, size = self._schedule.item(number), self._size
        self.open[number] = Group(number, item, now_ms, [None] * size, [0] * size)
        return number, 0
