"""Versions that an engine does not serve: refused for good, or until they are worth another try.

In: a version and what was wrong with it. Out: a ``refused`` ack, and whether to try it now. What
was wrong with the bytes that came stays wrong; bytes that could not be had may come later.
Called by :mod:`services.engine.hostcopy` for the versions of the model, by
:mod:`services.engine.adapters` for adapters.
"""

from __future__ import annotations

from collections.abc import Callable
import logging
import math

from prometheus_client import Counter

from services.engine.acks import Acks
from tailrace.errors import UpdateRefused

logger = logging.getLogger(__name__)

MAY_PASS = ("uri", "truncated", "gap", "no room")
"""Reasons for refusing a version that may not be there any more later."""
AGAIN_S = 60.0
"""Until a version that was refused for one of them is tried again."""


class Refusals:
    """Of one process. ``clock`` in seconds, monotonic; ``counter`` has the label ``outcome``."""

    def __init__(
        self, acks: Acks, clock: Callable[[], float], counter: Counter, *, prefix: str = ""
    ) -> None:
        """``prefix``: before each reason in the acks."""
        self._acks, self._clock, self._counter = acks, clock, counter
        self._prefix = prefix
        self._until_s: dict[int, float] = {}

    def __contains__(self, version: int) -> bool:
        """Is it not to be tried now?"""
        return self._clock() < self._until_s.get(version, -math.inf)

    def add(self, version: int, why: Exception | str) -> None:
        """Say that it is refused, and why."""
        logger.error("refused version=%d: %s%s", version, self._prefix, why)
        passing = isinstance(why, UpdateRefused) and why.reason in MAY_PASS
        self._until_s[version] = self._clock() + AGAIN_S if passing else math.inf
        self._counter.labels("refused").inc()
        self._acks.send("refused", version, None, reason=f"{self._prefix}{why}")
