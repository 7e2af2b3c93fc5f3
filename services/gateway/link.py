"""The gateway's link to Kafka: one Writer, made when it is first needed, and again when it broke.

A producer with a fatal error appends nothing more, however long one waits. Whoever gets an error
calls :meth:`Link.open` again, and that puts a new producer in place of a broken one.

In: records. Out: what became of each append. Runs on the event loop; whatever blocks is done apart.
Called by :mod:`services.gateway.capture`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import Future
import logging

from services.gateway import metrics, threads
from services.gateway.spool import Row
from tailrace import events
from tailrace.errors import Broken, InvalidRecord, LogError
from tailrace.log.base import Position
from tailrace.stream import Writer
from tailrace.topics import Topic

log = logging.getLogger(__name__)


class Link:
    """Down until :meth:`open`."""

    def __init__(self, connect: Callable[[], Writer], *, pause_s: float = 1.0) -> None:
        """``connect`` publishes the schemas and gives a Writer; may block; raises LogError.

        ``pause_s``: before each rebuild.
        """
        self._connect = connect
        self._pause_s = pause_s
        self._writer: Writer | None = None
        self._broken: Broken | None = None

    @property
    def up(self) -> bool:
        """Whether there is a producer to append with."""
        return self._writer is not None and self._broken is None

    async def open(self) -> None:
        """Be up, with a new producer if the last one broke. Raises LogError."""
        if self._broken is not None:
            log.error("producer is rebuilt error=%s", self._broken)
            metrics.REBUILDS.inc()
            await asyncio.sleep(self._pause_s)
            # What it still holds fails now, so that nobody waits for it.
            await self.close()
            self._writer = self._broken = None
        if self._writer is None:
            self._writer = await threads.apart(self._connect)

    def write(
        self, topic: Topic, record: events.Struct, traceparent: str | None = None
    ) -> Future[Position]:
        """Append a record; it must be up. Raises InvalidRecord, LogError."""
        writer = self._writer
        assert writer is not None
        try:
            future = writer.write(topic, record, traceparent=traceparent)
        except Broken as error:
            self._broken = error
            raise
        future.add_done_callback(lambda done: self._settled(writer, done))
        return future

    async def write_all(self, rows: Iterable[Row]) -> list[Position | BaseException]:
        """Append records in order and wait for all of them: what became of each."""
        waiting: list[asyncio.Future[Position]] = []
        for row in rows:
            try:
                written = self.write(row.topic, row.record, row.traceparent)
                waiting.append(threads.awaitable(written))
            except (InvalidRecord, LogError) as error:
                waiting.append(asyncio.get_running_loop().create_future())
                waiting[-1].set_exception(error)
        return await asyncio.gather(*waiting, return_exceptions=True)

    async def close(self) -> None:
        """Flush what can be flushed, and let go."""
        if self._writer is not None:
            await threads.apart(self._writer.producer.close)

    def _settled(self, writer: Writer, done: Future[Position]) -> None:
        """On the producer's thread. A late report of an earlier producer says nothing of this."""
        error = done.exception()
        if isinstance(error, Broken) and writer is self._writer:
            self._broken = error
