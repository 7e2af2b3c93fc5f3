"""Notices what stands still although there is something to do.

A worker whose reading has stopped without an error looks alive: it ticks and answers its probes.
The shell ends such a process, and its supervisor starts it again. Pure but for the clock.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
import time


class Stalled(Exception):
    """Something did not move for too long, or a record was passed over."""


class Stall:
    """Any number of things that have to move. Used by the shell and its upkeep."""

    def __init__(self, limit_s: float, now_s: Callable[[], float] = time.monotonic) -> None:
        self._limit_s = limit_s
        self._now_s = now_s
        self._seen: dict[Hashable, tuple[object, float, float]] = {}
        """By name: where it was, since when, and when that was last looked at."""

    def see(self, name: Hashable, place: object | None) -> None:
        """Note where something is; None: it has nothing to do.

        Raises Stalled when it has been in the same place for the limit. Time in which nobody looked
        (a broker that was away) does not count.
        """
        now_s = self._now_s()
        before = self._seen.get(name)
        if place is None:
            self._seen.pop(name, None)
        elif before is None or before[0] != place or now_s - before[2] > self._limit_s / 2:
            self._seen[name] = (place, now_s, now_s)
        elif now_s - before[1] > self._limit_s:
            raise Stalled(f"{name} has stayed at {place} for {now_s - before[1]:.0f} s")
        else:
            self._seen[name] = (place, before[1], now_s)

    def reset(self) -> None:
        """Forget everything: the assignment changed, or whatever it was had its reason."""
        self._seen.clear()
