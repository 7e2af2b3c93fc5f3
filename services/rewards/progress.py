"""How far the recovery of the table is: for /readyz, a gauge and a line in the log now and then.

In: how many values of the changelog are still to be read, told by the shell many times a second.
Pure but for the clock.
"""

from __future__ import annotations

from collections.abc import Callable
import logging
import time

from services.rewards.metrics import Metrics

logger = logging.getLogger(__name__)
SAID_EVERY_S = 10.0


class Progress:
    """One worker's recovery, again after each rebalance."""

    def __init__(self, metrics: Metrics, now_s: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._now_s = now_s
        self._left: int | None = None
        self._said_at = -SAID_EVERY_S

    def see(self, left: int | None) -> None:
        """``left``: values still to be read; None: there is no recovery."""
        if left is None and self._left is not None:
            logger.info("recovered")
        self._left = left
        self._metrics.recovery_values.set(left or 0)
        if left is None:
            self._said_at = -SAID_EVERY_S
        elif left and self._now_s() - self._said_at >= SAID_EVERY_S:
            self._said_at = self._now_s()
            logger.info("recovering values_left=%d", left)

    def reason(self) -> str | None:
        """Why the worker is not ready; None: it does not recover."""
        return None if self._left is None else f"recovering, {self._left} values left"
