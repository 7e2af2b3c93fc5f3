"""The clock: writes a Tick per assigned partition, so that time passes where records lie.

A tick's time is the append time of this worker's previous tick on that partition, less the skew
allowance; its ends are asked for after that tick was appended. So whatever was appended before the
tick's time lies below its ends. The first tick after an assignment has none before it: its time is
0 and the join lets it pass. A partition where nothing is open ticks rarely.

Run by the shell; in a replay prefix it is off, the replayer writes the ticks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
import time

from tailrace.events import Tick

Write = Callable[[Tick], Awaitable[int]]
"""Append a tick on its partition; gives its append time in ms."""
Ends = Callable[[], Awaitable[Mapping[int, Mapping[str, int]]]]


class Clock:
    """The ticks of one worker."""

    def __init__(self, write: Write, ends: Ends, *, skew_ms: int, idle_tick_s: float) -> None:
        self._write = write
        self._ends = ends
        self._skew_ms = skew_ms
        self._idle_tick_s = idle_tick_s
        self._appended_ms: dict[int, int] = {}
        self._ticked_at: dict[int, float] = {}

    def reset(self) -> None:
        """Forget earlier ticks: the partitions may have been another worker's meanwhile."""
        self._appended_ms.clear()
        self._ticked_at.clear()

    async def tick(self, busy: Mapping[int, bool]) -> None:
        """Write a tick on each of these partitions that is busy or due. Raises LogError."""
        now = time.monotonic()
        due = [
            partition
            for partition, is_busy in busy.items()
            if is_busy or now - self._ticked_at.get(partition, -1e9) >= self._idle_tick_s
        ]
        if not due:
            return
        before = dict(self._appended_ms)
        ends = await self._ends()
        ticks = [
            Tick(
                partition=partition,
                event_time_ms=max(0, before.get(partition, 0) - self._skew_ms),
                ends=dict(ends[partition]),
            )
            for partition in due
        ]
        for tick, appended_ms in zip(
            ticks, await asyncio.gather(*map(self._write, ticks)), strict=True
        ):
            self._appended_ms[tick.partition] = appended_ms
            self._ticked_at[tick.partition] = now
