"""Ticks promise only what was appended before them."""

from __future__ import annotations

import asyncio

from services.rewards.clock import Clock
from tailrace.events import Tick


def test_a_tick_tells_the_time_of_the_one_before_it() -> None:
    written: list[Tick] = []
    told: list[str] = []

    async def write(tick: Tick) -> int:
        told.append("write")
        written.append(tick)
        return 10_000 * len(written)

    async def ends() -> dict[int, dict[str, int]]:
        told.append("ends")
        return {0: {"feedback": len(written)}, 1: {"feedback": 0}}

    async def story() -> None:
        clock = Clock(write, ends, skew_ms=200, idle_tick_s=3600)
        await clock.tick({0: True})
        await clock.tick({0: True, 1: False})
        await clock.tick({0: True, 1: False})  # partition 1 is idle and ticked already
        await clock.tick({1: False})
        clock.reset()
        await clock.tick({0: False})

    asyncio.run(story())
    assert [(t.partition, t.event_time_ms) for t in written] == [
        (0, 0),
        (0, 9_800),
        (1, 0),
        (0, 19_800),
        (0, 0),
    ]
    assert [t.ends["feedback"] for t in written if t.partition == 0] == [0, 1, 3, 4]
    assert told[:4] == ["ends", "write", "ends", "write"]
