"""Looks after a vLLM between two swaps: does it still hold what was swapped in, and does it run?

In: the admin API. Out: yes; no, it holds something else; or :class:`~services.engine.swap.Doubt`.
One that somebody froze is woken. One that answers late because its core is in a long step, as on a
slow machine, is not down as long as it works tokens off. Called every turn by
:mod:`services.engine.engine`.
"""

from __future__ import annotations

from collections.abc import Callable
import logging

from services.engine.admin import Admin, Trouble
from services.engine.swap import Doubt, Swap

logger = logging.getLogger(__name__)

_EVERY_S = 2.0
_GIVE_WAY_S = 10.0
_MISSES = 3
"""How often in a row it may not answer."""


class Watch:
    """Over one vLLM after another. ``clock`` in seconds, monotonic."""

    def __init__(self, admin: Admin, swap: Swap, clock: Callable[[], float]) -> None:
        self._admin, self._swap, self._clock = admin, swap, clock
        self._misses = 0
        self._tokens: float | None = None
        """What it had worked off when it last did not answer."""
        self._next = 0.0

    def holds(self, version: int, *, swap_due: bool = False) -> bool:
        """Is this what it serves? Raises Doubt when it does not answer or cannot be woken.

        A swap that is ``swap_due`` asks for itself, and is not to wait for an answer that comes
        behind a long step: it goes ahead, for a while.
        """
        now_s = self._clock()
        if now_s < self._next + (_GIVE_WAY_S if swap_due else 0.0):
            return True
        self._next = now_s + _EVERY_S
        try:
            label, paused = self._admin.weight_info(), self._admin.is_paused()
        except Trouble as error:
            if self._works():
                logger.info("vllm is busy tokens=%d: %s", self._tokens, error)
                self._misses = 0
                return True
            self._misses += 1
            logger.warning("vllm does not answer misses=%d: %s", self._misses, error)
            if self._misses < _MISSES:
                return True
            self._misses = 0
            raise Doubt(str(error)) from error
        self._misses = 0
        if label != str(version):
            logger.error("label is %s, not %d: swapping in full", label, version)
            return False
        if paused:
            logger.warning("vllm is frozen outside a swap: waking it")
            self._swap.resume()
        return True

    def _works(self) -> bool:
        before = self._tokens
        try:
            self._tokens = self._admin.tokens()
        except Trouble:
            return False
        return before is not None and self._tokens > before
