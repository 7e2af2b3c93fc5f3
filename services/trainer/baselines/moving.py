"""Exponential moving means of the reward, by name. Pure.

Called by :mod:`services.trainer.baselines`; learnt only from the inputs of Steps, in Step order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

MOST_NAMES = 10_000
"""Names come from clients: when so many are known, the others share one mean."""
_OTHERS = "\x00"


class MovingMeans:
    """One moving mean for each name, unbiased at its start.

    ``decay`` is the weight of the past per step. Until the plain mean over everything seen moves
    less than that, the plain mean is used.

    >>> means = MovingMeans(decay=0.9)
    >>> means.learn([("", 1.0), ("", 0.0)])
    >>> means.of("")
    0.5
    """

    def __init__(self, *, decay: float) -> None:
        self._decay = decay
        self._means: dict[str, tuple[float, int]] = {}
        """Mean, and how many rewards it has seen."""

    def of(self, name: str) -> float | None:
        """None: never seen."""
        found = self._means.get(self._known_as(name))
        return None if found is None else found[0]

    def learn(self, rewards: Sequence[tuple[str, float]]) -> None:
        """Take the (name, reward) of one step's inputs."""
        for name, (mean, count) in batch_means(rewards).items():
            name = self._known_as(name)
            before, seen = self._means.get(name, (0.0, 0))
            rate = max(1.0 - self._decay, count / (seen + count))
            self._means[name] = before + rate * (mean - before), seen + count

    def state(self) -> list[list[Any]]:
        """As a checkpoint keeps it: name, mean, count, in the order of their coming."""
        return [[name, mean, seen] for name, (mean, seen) in self._means.items()]

    def load(self, state: Sequence[Sequence[Any]]) -> None:
        """Put back a :meth:`state`."""
        self._means = {str(name): (float(mean), int(seen)) for name, mean, seen in state}

    def _known_as(self, name: str) -> str:
        return name if name in self._means or len(self._means) < MOST_NAMES else _OTHERS


def batch_means(rewards: Sequence[tuple[str, float]]) -> dict[str, tuple[float, int]]:
    """(mean, how many) of the rewards of each name."""
    by_name: dict[str, list[float]] = {}
    for name, reward in rewards:
        by_name.setdefault(name, []).append(reward)
    return {name: (_mean(found), len(found)) for name, found in by_name.items()}


def _mean(values: Sequence[float]) -> float:
    # Between the smallest and the largest, whatever a sum rounds to: equal ones leave no signal.
    return min(max(sum(values) / len(values), min(values)), max(values))
