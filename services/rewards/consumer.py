"""Faust's consumer, made strict: no record is passed over.

What Faust 0.15.3 does at the end of every table recovery: it lets the inputs flow, seeks them to
the committed offsets, and empties its queues. A record that was fetched between the last two is
gone. Moreover a fetch that is under way while partitions are paused may come back with others than
were asked for, which are dropped; and the seek leaves a partition alone that has no committed
offset, wherever such a fetch has moved it. So here

- nothing is fetched from before the seek until the queues have been emptied;
- what is not wanted when it comes is put back to be read again;
- where nothing was committed, reading starts at the beginning.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from faust.transport.drivers import aiokafka as driver
from faust.types import TP

_FETCH_S = 0.2
"""How long a fetch waits for records, and at most how long a seek waits for a fetch."""
_IDLE_S = 30.0


class StrictConsumer(driver.Consumer):
    """Delivers every record from the committed offsets on. Says when offsets are committed."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._idle = asyncio.Event()
        """Whether nobody fetches, or hands on what was fetched."""
        self._idle.set()

    async def perform_seek(self) -> None:
        """Go to what the group has committed. Faust lets records flow again after it."""
        self.stop_flow()
        await asyncio.wait_for(self._idle.wait(), _IDLE_S)
        await super().perform_seek()
        uncommitted = {
            tp
            for tp in self.assignment()
            if not self._committed_offset[tp] and not self._is_changelog_tp(tp)
        }
        if uncommitted:
            await self.seek_wait(await self.earliest_offsets(*uncommitted))

    async def _wait_next_records(self, timeout: float) -> tuple[Any, Any]:
        if not self.flow_active:
            self._idle.set()
            await self.wait(self.can_resume_flow)
        self._idle.clear()
        records, active = await super()._wait_next_records(min(timeout, _FETCH_S))
        while records and (unwanted := self._unwanted(records, active)):
            await self._thread.call_thread(self._put_back, unwanted)
            records = {tp: found for tp, found in records.items() if tp not in unwanted}
        return records or None, active

    def _unwanted(self, records: Mapping[TP, list[Any]], active: set[TP]) -> dict[TP, list[Any]]:
        wanted = active | self._buffered_partitions if self.flow_active else set()
        return {tp: found for tp, found in records.items() if tp not in wanted}

    async def _put_back(self, records: Mapping[TP, list[Any]]) -> None:
        """Read these records again, unless somebody has moved their partition since."""
        consumer = self._thread._ensure_consumer()
        subscription = consumer._subscription.subscription
        assignment = subscription and subscription.assignment
        for tp, found in records.items():
            if not assignment or tp not in assignment.tps:
                continue
            state = assignment.state_value(tp)
            if state.has_valid_position and state.position > found[-1].offset:
                consumer._fetcher.seek_to(tp, found[0].offset)

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        did = await super()._commit(offsets)
        self.transport.step("committed")
        return did
