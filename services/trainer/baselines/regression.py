"""What the prompt says about the reward to expect beyond its slice's mean: a linear model by River.

Features are of the prompt alone, so the baseline stays unbiased: its tokens in hashed buckets, its
length, its slice. They are scaled to unit length, so no scaler needs a state and no prompt can make
a step larger than ``RATE``. The state is River's weights and its count of updates: numbers, and
after a load the same numbers come as if nothing had been (River's vectors keep the order in which
their keys came, and so does the state).

River is imported when a :class:`Regression` is made: who does not ask for one need not have it.
"""

from __future__ import annotations

from collections.abc import Mapping
import math
from typing import Any

from services.trainer.answer import Answer

RATE = 0.05
"""Step size; below 1 a step on features of unit length does not overshoot what it learns from
(River's gradient of a square has the 2)."""
BUCKETS = 1021
"""Of token ids. A prime, so that neighbours in a vocabulary do not meet."""
_SLICES = 61


class Regression:
    """Predicts the residual of a reward. For one thread."""

    def __init__(self) -> None:
        from river import optim
        from river.linear_model import LinearRegression

        # No intercept: the mean is the moving one's to know.
        self._model = LinearRegression(optimizer=optim.SGD(RATE), intercept_lr=0.0)
        self._low, self._high = math.inf, -math.inf
        """The residuals seen lie between them, and so do predictions."""

    def of(self, answer: Answer) -> float:
        """The expected residual; 0 before anything was learnt."""
        if self._low > self._high:
            return 0.0
        return min(max(float(self._model.predict_one(features(answer))), self._low), self._high)

    def learn(self, answer: Answer, residual: float) -> None:
        """Take one answer's reward less its moving mean."""
        self._low, self._high = min(self._low, residual), max(self._high, residual)
        self._model.learn_one(features(answer), residual)

    def state(self) -> dict[str, Any]:
        """As a checkpoint keeps it."""
        return {
            "weights": [[name, weight] for name, weight in self._model.weights.items()],
            "updates": self._model.optimizer.n_iterations,
            "range": [self._low, self._high] if self._low <= self._high else [],
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Put back a :meth:`state`."""
        from river.utils import VectorDict

        weights = {str(name): float(weight) for name, weight in state["weights"]}
        self._model._weights = VectorDict(weights)
        self._model.optimizer.n_iterations = int(state["updates"])
        self._low, self._high = state["range"] or (math.inf, -math.inf)


def features(answer: Answer) -> dict[str, float]:
    """Of the prompt, by name; their squares sum to 1."""
    found: dict[str, float] = {"length": math.log1p(len(answer.prompt)) / 8.0}
    found[f"slice {_bucket(answer.slice)}"] = 1.0
    counts: dict[int, int] = {}
    for token in answer.prompt:
        counts[token % BUCKETS] = counts.get(token % BUCKETS, 0) + 1
    # What every prompt of a template repeats should not drown what it is about.
    found.update((f"token {bucket}", math.log1p(count)) for bucket, count in counts.items())
    length = math.sqrt(sum(value * value for value in found.values()))
    return {name: value / length for name, value in found.items()}


def _bucket(name: str) -> int:
    """Python's own hash differs from process to process."""
    value = 0
    for byte in name.encode():
        value = (value * 257 + byte) % 2_147_483_647
    return value % _SLICES
