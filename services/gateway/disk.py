"""The spool on a thread of its own: the event loop waits for no disk.

In: events that Kafka did not take. Out: which of them are fsynced now; the oldest rows, until they
are deleted. Called by :mod:`services.gateway.capture`, on its event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
import logging
import sqlite3
from typing import TypeVar

from services.gateway import metrics
from services.gateway.event import Event
from services.gateway.spool import Row, Spool
from tailrace import events
from tailrace.errors import InvalidRecord

log = logging.getLogger(__name__)
T = TypeVar("T")
_ROWS = 200


class Disk:
    """One spool. Closed once, by :meth:`close`."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._thread = ThreadPoolExecutor(1, "spool")
        self._gauge()

    @property
    def records(self) -> int:
        """Rows waiting."""
        return self._spool.records

    @property
    def bytes(self) -> int:
        """What they take."""
        return self._spool.bytes

    def check(self, record: events.Struct) -> None:
        """Raises InvalidRecord when the record does not fit its contract."""
        self._spool.check(record)

    async def put(self, held: Sequence[Event]) -> list[bool]:
        """Which of the records are on disk now; none when it refuses."""
        if not held:
            return []
        entries = [(event.topic, event.record, event.traceparent) for event in held]
        try:
            return await self._apart(lambda: self._spool.put(entries))
        except (sqlite3.Error, OSError, InvalidRecord) as error:
            log.error("spool refused records count=%d error=%r", len(held), error)
            return [False] * len(held)

    async def head(self) -> list[Row]:
        """Some of the oldest rows, in order. Raises sqlite3.Error."""
        return await self._apart(lambda: self._spool.head(_ROWS))

    async def delete(self, numbers: Sequence[int]) -> None:
        """Forget rows. Raises sqlite3.Error."""
        await self._apart(lambda: self._spool.delete(numbers))

    async def close(self) -> None:
        await self._apart(self._spool.close)
        self._thread.shutdown()

    async def _apart(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        finally:
            self._gauge()

    def _gauge(self) -> None:
        metrics.SPOOL_BYTES.set(self._spool.bytes)
        metrics.SPOOL_RECORDS.set(self._spool.records)
