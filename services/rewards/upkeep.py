"""What a worker does besides joining: ticks, committed offsets, gaps, gauges.

Two tasks beside the agent: one ticks, one probes where a tick waits, so that a partition that waits
holds up no other. They never touch the table; what they learn is handed to the joins, or left for
the agent to apply with the next record of the partition.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
import logging

from services.rewards.clock import Clock
from services.rewards.join import Join
from services.rewards.metrics import Metrics
from services.rewards.offsets import Offsets
from services.rewards.settings import Settings
from services.rewards.stall import Stall
from services.rewards.ticks import INPUTS
from tailrace import events
from tailrace.errors import LogError

logger = logging.getLogger(__name__)
_ASK_S = 5.0


class Upkeep:
    """``joins`` gives the joins that are ready now; ``write_tick`` appends a tick and gives its
    offset and append time; ``underway`` says how far an assignment is that has begun, None: none is
    under way."""

    def __init__(
        self,
        settings: Settings,
        offsets: Offsets,
        metrics: Metrics,
        joins: Callable[[], Mapping[int, Join]],
        write_tick: Callable[[events.Tick], Awaitable[tuple[int, int]]],
        underway: Callable[[], object | None],
    ) -> None:
        self._settings = settings
        self._offsets = offsets
        self._metrics = metrics
        self._joins = joins
        self._write_tick = write_tick
        self._underway = underway
        self._ticks_end: dict[int, int] = {}
        """One past the newest tick that this worker wrote."""
        self._stall = Stall(settings.stall_s)
        # Twice: so long may another worker hold up the group, see the Faust app.
        self._assignment = Stall(2 * settings.stall_s)
        self._clock = Clock(
            self._write, self._ends, skew_ms=settings.skew_ms, idle_tick_s=settings.idle_tick_s
        )
        self._gaps: dict[int, tuple[str, int, int]] = {}
        self._waited: dict[int, tuple[str, int, int]] = {}
        self._blocked: dict[int, str] = {}
        self._passed_over: set[tuple[str, str]] = set()
        """What was counted: of partitions that went to another worker it is none of this one's."""

    def blocked(self) -> str | None:
        """Which tick waits for records that do not exist, and holds its partition; None: no tick.

        Nobody but a worker should write ticks, and a topic should not lose its end.
        """
        return next(iter(self._blocked.values()), None)

    def take_gap(self, partition: int) -> tuple[str, int, int] | None:
        """A gap that was found and not yet applied: kind, start, end."""
        return self._gaps.pop(partition, None)

    def reset(self) -> None:
        """The assignment changed."""
        self._clock.reset()
        self._ticks_end.clear()
        self._stall.reset()
        self._gaps.clear()
        self._waited.clear()
        self._blocked.clear()

    async def run(self) -> None:
        """Tick, learn what was committed, and look into gaps, as long as the worker runs.

        Raises Stalled when a partition stands still although there is something to read, or an
        assignment although the brokers answer.
        """
        await asyncio.gather(self._tick(), self._probe())

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        while True:
            await asyncio.sleep(self._settings.tick_s)
            joins = dict(self._joins())
            self._show(joins)
            if not joins:
                continue
            try:
                if not self._settings.replay:
                    busy = {p: join.busy for p, join in joins.items() if p not in self._blocked}
                    await self._clock.tick(busy)
                    self._watch_ticks()
                if loop.time() - asked_at >= _ASK_S:
                    asked_at = loop.time()
                    committed = await loop.run_in_executor(None, self._offsets.committed, joins)
                    for partition, join in joins.items():
                        join.on_committed(committed[partition])
            except LogError as error:
                self._metrics.clock_failures.inc()
                logger.warning("no tick error=%s", error)

    async def _probe(self) -> None:
        while True:
            await asyncio.sleep(self._settings.tick_s)
            try:
                await self._watch_assignment()
                await self._look_into_gaps(dict(self._joins()))
            except LogError as error:
                self._metrics.probe_failures.inc()
                logger.warning("no probe error=%s", error)

    async def _watch_assignment(self) -> None:
        """Only Faust knows what it waits for, but while the group's broker is away it has to."""
        place = self._underway()
        if place is not None:
            loop = asyncio.get_running_loop()
            try:
                await loop.run_in_executor(None, self._offsets.committed, [0])
            except LogError:
                self._assignment.reset()
                raise
        self._assignment.see("the assignment", place)

    async def _look_into_gaps(self, joins: Mapping[int, Join]) -> None:
        """Where a tick waits in the same place as last time, ask if anything is there to read."""
        loop = asyncio.get_running_loop()
        waiting = {p: found for p, join in joins.items() if (found := join.waits_for()) is not None}
        stuck = {p: found for p, found in waiting.items() if self._waited.get(p) == found}
        self._waited = waiting
        ends = await loop.run_in_executor(None, self._offsets.ends) if stuck else {}
        blocked = {
            partition: f"a tick on partition {partition} waits for {kind} {end}: it ends at {high}"
            for partition, (kind, _, end) in stuck.items()
            if (high := ends[partition][kind]) < end
        }
        for partition in blocked.keys() - self._blocked.keys():
            logger.error("blocked reason=%r", blocked[partition])
        self._blocked = blocked
        self._metrics.blocked_partitions.set(len(blocked))
        for partition in joins:
            kind, start, end = stuck.get(partition, ("", 0, 0))
            end = min(end, ends[partition][kind]) if kind else 0
            if end <= start:
                self._stall.see(f"a record on partition {partition}", None)
                continue
            gap_end = await loop.run_in_executor(
                None, self._offsets.gap_end, kind, partition, start, end
            )
            there = (kind, start) if gap_end == start else None
            self._stall.see(f"a record on partition {partition}", there)
            if gap_end > start:
                # The join may only write with a record at hand: the next one on this partition.
                self._gaps[partition] = (kind, start, gap_end)

    async def _write(self, tick: events.Tick) -> int:
        offset, time_ms = await self._write_tick(tick)
        self._ticks_end[tick.partition] = offset + 1
        return time_ms

    def _watch_ticks(self) -> None:
        """A worker that has a tick of its own to read must move on, on one topic at least."""
        for partition, join in self._joins().items():
            unread = join.positions["ticks"] < self._ticks_end.get(partition, 0)
            place = tuple(join.positions.items()) if unread else None
            self._stall.see(f"reading of partition {partition}", place)

    async def _ends(self) -> dict[int, dict[str, int]]:
        ends = await asyncio.get_running_loop().run_in_executor(None, self._offsets.ends)
        for kind in INPUTS:
            lag = sum(ends[p][kind] - join.positions[kind] for p, join in self._joins().items())
            self._metrics.lag.labels(kind).set(lag)
        return ends

    def _show(self, joins: Mapping[int, Join]) -> None:
        self._metrics.open_entries.set(sum(join.open_entries for join in joins.values()))
        self._metrics.waiting_ticks.set(sum(join.waiting_ticks for join in joins.values()))
        totals = dict.fromkeys(self._passed_over, 0)
        for join in joins.values():
            for what, number in join.counts.items():
                totals[what] = totals.get(what, 0) + number
        self._passed_over.update(totals)
        for (kind, reason), number in totals.items():
            self._metrics.passed_over.labels(kind, reason).set(number)
