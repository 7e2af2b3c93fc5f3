"""The usable answers that wait for a step, and what of them one step may take. Pure.

What belongs together is taken together: the answers of one group, whose baseline is each other, and
the two of a preference. A group that is not whole yet, and a preferred answer whose rival has not
come, wait as long as a small batch does; then they go as they are. Owned by
:mod:`services.trainer.intake`, which decides what may stay here.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from services.trainer.answer import Answer
from services.trainer.routes import Routes


class Unit(msgspec.Struct, frozen=True):
    """Is taken whole."""

    answers: list[Answer]
    """Of a pair the winner is first, of a group the oldest."""
    paired: bool = False

    @property
    def newest(self) -> tuple[int, int, int]:
        """Where it stands among the others."""
        return max(map(_place, self.answers))


class Pool:
    """Answers by trajectory id, in the order of their arrival."""

    def __init__(self, routes: Routes, *, wait_s: float, largest: int) -> None:
        """``wait_s``: how long an answer waits for those that it belongs to; ``largest``: groups
        are not taken in larger parts."""
        self._routes = routes
        self._wait_s, self._largest = wait_s, largest
        self._answers: dict[str, Answer] = {}
        self._arrived_s: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._answers)

    def __contains__(self, trajectory_id: str) -> bool:
        return trajectory_id in self._answers

    def __iter__(self) -> Iterator[Answer]:
        """Those that are there now, whatever is removed meanwhile."""
        return iter(list(self._answers.values()))

    def add(self, answer: Answer, now_s: float) -> None:
        """Take one that came."""
        self._answers[answer.trajectory_id] = answer
        self._arrived_s[answer.trajectory_id] = now_s

    def remove(self, trajectory_id: str) -> Answer:
        """Give one up."""
        del self._arrived_s[trajectory_id]
        return self._answers.pop(trajectory_id)

    def oldest(self, count: int) -> list[Answer]:
        """So many of them, the oldest first."""
        return sorted(self._answers.values(), key=_place)[: max(0, count)]

    def waiting_s(self, now_s: float) -> float:
        """How long the answer that has waited longest has; 0 without any."""
        return now_s - min(self._arrived_s.values(), default=now_s)

    def ripe(self, now_s: float, *, whole: bool = True) -> list[Unit]:
        """What a step may take now, the freshest first. ``whole`` False: also what still waits for
        the rest of it. Every answer is in one unit at most."""
        left = dict(self._answers)
        found = self._pairs(left)
        names = {answer.name for answer in self._answers.values()}
        groups: dict[str, list[Answer]] = {}
        for answer in left.values():
            if answer.group is not None and answer.before is None and not answer.objective:
                groups.setdefault(answer.group, []).append(answer)
                continue
            missing = self._routes.may_wait(answer) and not names.issuperset(answer.below)
            if not (whole and missing and self._waits([answer], now_s)):
                found.append(Unit([answer]))
        for members in groups.values():
            missing = len(members) < max(answer.group_size for answer in members)
            waits = whole and missing and self._waits(members, now_s)
            members.sort(key=_place)
            for at in range(0, len(members), self._largest):
                part = members[at : at + self._largest]
                if len(part) == self._largest or not waits:
                    found.append(Unit(part))
        return sorted(found, key=lambda unit: unit.newest, reverse=True)

    def _pairs(self, left: dict[str, Answer]) -> list[Unit]:
        """The pairs, each answer in the first that it can be in; they are no longer ``left``."""
        by_name = {answer.name: answer for answer in left.values()}
        found = []
        for winner in [answer for answer in left.values() if answer.below]:
            for loser in filter(None, map(by_name.get, winner.below)):
                there = winner.trajectory_id in left and loser.trajectory_id in left
                if there and self._routes.are_pair(winner, loser):
                    found.append(Unit([winner, loser], paired=True))
                    del left[winner.trajectory_id], left[loser.trajectory_id]
        return found

    def _waits(self, members: list[Answer], now_s: float) -> bool:
        arrived_s = min(self._arrived_s[answer.trajectory_id] for answer in members)
        return now_s - arrived_s < self._wait_s


def _place(answer: Answer) -> tuple[int, int, int]:
    return answer.time_ms, answer.partition, answer.offset
