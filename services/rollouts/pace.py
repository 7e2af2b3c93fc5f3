"""How many requests of ours an engine bears before its tokens come too slowly. Pure.

A free slot is not free compute: each request more makes every token of every other one later, most
of all on a CPU. So beside the share of slots there may be a limit to vLLM's own mean time between
tokens, whoever they are for. Additive increase, multiplicative decrease (Chiu and Jain 1989,
"Analysis of the increase and decrease algorithms for congestion avoidance", section 3): one more
each second while tokens come in time, 0.7 of what there is when they do not. Nobody knows what a
request costs; this finds it, and finds it again when live traffic changes.
"""

from __future__ import annotations

from services.rollouts.share import SETTLED_MS, Load

_LESS = 0.7


class Pace:
    """The bound of one engine; ``limit_ms`` None: there is none."""

    def __init__(self, limit_ms: float | None, most: int) -> None:
        self._limit_ms, self._most = limit_ms, most
        self.bound = most if limit_ms is None else 1
        """Requests of ours that may be in flight."""
        self._before: Load | None = None
        self._changed_ms = 0

    def see(self, load: Load, ours: int, now_ms: int) -> None:
        """Take a reading; ``ours`` are in flight by our own count."""
        before, self._before = self._before, load
        if self._limit_ms is None or before is None:
            return
        tokens, took_s = load.tokens - before.tokens, load.tokens_s - before.tokens_s
        if tokens < 0:
            return  # another vLLM counts from nothing
        if tokens and took_s * 1000 > self._limit_ms * tokens:
            # While more are there than may be, the last decrease has yet to show.
            if ours <= self.bound:
                self.bound, self._changed_ms = int(ours * _LESS), now_ms
        elif (tokens or not ours) and ours >= self.bound:
            if now_ms - self._changed_ms >= SETTLED_MS:
                self.bound, self._changed_ms = min(self._most, self.bound + 1), now_ms
