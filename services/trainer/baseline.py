"""What reward to expect, without groups: live traffic has one answer per prompt.

One running mean per slice (the trajectory's task), learnt only from the inputs of Steps, in Step
order, so a replay of the ledger makes the same one.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class Slice(msgspec.Struct):
    """Mean reward of one slice."""

    mean: float = 0.0
    answers: int = 0
    """How many rewards it has seen."""


class Baseline:
    """Exponential moving mean of the reward per slice, unbiased at its start.

    ``decay`` is the weight of the past per step. Until the plain mean over everything seen moves
    less than that, the plain mean is used.

    >>> b = Baseline(decay=0.9)
    >>> b.advantages([("", 1.0), ("", 0.0)])
    [0.5, -0.5]
    >>> b.learn([("", 1.0), ("", 0.0)])
    >>> b.advantages([("", 1.0)])
    [0.5]
    """

    def __init__(self, *, decay: float) -> None:
        self._decay = decay
        self.slices: dict[str, Slice] = {}

    def advantages(self, rewards: Sequence[tuple[str, float]]) -> list[float]:
        """Reward less what was expected, for (slice, reward) each. Learns nothing.

        A slice that was never seen is measured by its own mean in this batch.
        """
        fresh = _means([(s, r) for s, r in rewards if s not in self.slices])
        return [r - (self.slices[s].mean if s in self.slices else fresh[s][0]) for s, r in rewards]

    def learn(self, rewards: Sequence[tuple[str, float]]) -> None:
        """Take the rewards of one step's inputs."""
        for name, (mean, count) in _means(rewards).items():
            known = self.slices.setdefault(name, Slice())
            rate = max(1.0 - self._decay, count / (known.answers + count))
            known.mean += rate * (mean - known.mean)
            known.answers += count


def _means(rewards: Sequence[tuple[str, float]]) -> dict[str, tuple[float, int]]:
    by_slice: dict[str, list[float]] = {}
    for name, reward in rewards:
        by_slice.setdefault(name, []).append(reward)
    return {name: (sum(found) / len(found), len(found)) for name, found in by_slice.items()}
