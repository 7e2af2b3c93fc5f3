"""Records on their way to Kafka, without anybody waiting for it who need not.

    offer(record)  ─┐                    ┌─ Kafka acknowledged
                    ├─> queue ─> sender ─┤
    keep(feedback) ─┘     ^              └─ no: spool (fsync) ─> drain, in order ─> Kafka
                          └── an append that failed comes back for the spool

``offer`` (prompts, outputs) never waits; ``keep`` (feedback) returns when Kafka acknowledged the
record or the spool has it on disk. While anything is spooled everything goes through the spool.
At-least-once: an append that was cut short may lie on the log and be sent again, under its own id.

What has no room loses its content and is counted; once there is room again it is written as a stub
(``untrainable: capture_lost``), so that its feedback still finds its place. Runs on the event loop;
the disk has a thread of its own, the producer too. Called by :mod:`services.gateway.app`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future
import logging
import sqlite3

from services.gateway import drain, metrics, threads
from services.gateway.disk import Disk
from services.gateway.event import Event, Losses, SpoolFull, event_of
from services.gateway.link import Link
from services.gateway.spool import Spool
from tailrace import events, topics
from tailrace.errors import InvalidRecord, LogError, TooLarge
from tailrace.log.base import Position
from tailrace.topics import Topic

log = logging.getLogger(__name__)
_LONGEST_WAIT_S = 5.0
_LINGER_S = 0.002


class Capture:
    """The way out of one gateway. Build it and call everything on one event loop."""

    def __init__(
        self,
        link: Link,
        spool: Spool,
        *,
        queue_bytes: int,
        step: Callable[[int], None] = lambda number: None,
        pause_s: float = 0.2,
    ) -> None:
        """``link`` is opened and closed here.

        ``step`` is told the numbered points at which a test may end the process: 1 feedback is
        queued, 4 spooled records are on Kafka but not yet deleted (2 and 3 are the app's).
        ``pause_s``: first pause after Kafka failed, doubling.
        """
        self._link = link
        self._disk = Disk(spool)
        self._queue_bytes = queue_bytes
        self._step = step
        self._pause_s = pause_s
        self._queue: asyncio.Queue[Event] = asyncio.Queue()
        self._queued_bytes = 0
        self._in_flight = 0
        self._busy = False
        self._spooling = True
        self._wake = asyncio.Event()
        self._wake.set()
        self._losses = Losses()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to send, older spooled records first."""
        self._tasks = [
            asyncio.create_task(self._send_all(), name="capture"),
            asyncio.create_task(self._drain(), name="drain"),
        ]
        for task in self._tasks:
            threads.vital(task)

    def offer(
        self,
        topic: Topic,
        record: events.Prompt | events.Output,
        traceparent: str | None = None,
    ) -> None:
        """Send a record, or lose its content. Never waits, never raises."""
        event = event_of(topic, self._losses.bare(record), traceparent)
        if self._queued_bytes + event.bytes > self._queue_bytes:
            self._losses.lose(event, "queue_full")
        else:
            self._put(event)

    async def keep(
        self, records: Sequence[events.Feedback], traceparent: str | None = None
    ) -> None:
        """Return when all the records are durable.

        Raises SpoolFull when one is not (others may be), InvalidRecord when it cannot be encoded.
        """
        if self._queued_bytes > 2 * self._queue_bytes:
            raise SpoolFull("too much is on its way already")
        for record in records:
            self._disk.check(record)
        waiting = []
        for record in records:
            event = event_of(topics.FEEDBACK, record, traceparent)
            event.kept = asyncio.get_running_loop().create_future()
            waiting.append(event.kept)
            self._put(event)
        self._step(1)
        for result in await asyncio.gather(*waiting, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    def state(self) -> str:
        """``kafka`` or ``spool``: where records go right now."""
        return "spool" if self._spooling else "kafka"

    async def close(self, timeout_s: float) -> None:
        """Send what is on its way; what cannot be sent in time is spooled."""
        end = asyncio.get_running_loop().time() + timeout_s
        while self._queue.qsize() or self._in_flight or self._busy:
            if asyncio.get_running_loop().time() > end:
                log.warning("closing with records in flight count=%d", self._in_flight)
                break
            await asyncio.sleep(0.01)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for stub in self._losses.stubs:
            self._put(stub)
        rest = [self._queue.get_nowait() for _ in range(self._queue.qsize())]
        if rest:
            await self._to_spool(rest)
        await self._link.close()
        await self._disk.close()

    # -- the sender

    def _put(self, event: Event) -> None:
        self._queued_bytes += event.bytes
        self._queue.put_nowait(event)
        metrics.QUEUE_BYTES.set(self._queued_bytes)

    async def _send_all(self) -> None:
        while True:
            batch = [await self._queue.get()]
            self._busy = True
            if batch[0].kept is None:
                # Nobody waits: whatever made this record may answer first.
                await asyncio.sleep(_LINGER_S)
            batch += [self._queue.get_nowait() for _ in range(self._queue.qsize())]
            held = [e for e in batch if e.to_spool or self._spooling or not self._send(e)]
            if held:
                await self._to_spool(held)
            if not self._queue.qsize():
                self._revive()
            self._busy = False

    def _send(self, event: Event) -> bool:
        """Append to Kafka. False: it did not take it."""
        try:
            future = self._link.write(event.topic, event.record, event.traceparent)
        except (InvalidRecord, TooLarge) as error:
            self._give_up(event, error)
            return True
        except LogError as error:
            self._spool_from_now(error)
            return False
        loop = asyncio.get_running_loop()
        self._in_flight += 1
        future.add_done_callback(
            lambda done: loop.call_soon_threadsafe(self._acknowledged, event, done)
        )
        return True

    def _acknowledged(self, event: Event, done: Future[Position]) -> None:
        self._in_flight -= 1
        error = done.exception()
        if error is None:
            self._finish(event, "kafka")
        elif isinstance(error, TooLarge):
            self._give_up(event, error)
        else:
            self._spool_from_now(error)
            event.to_spool = True
            self._queue.put_nowait(event)

    async def _to_spool(self, held: list[Event]) -> None:
        # Prompts first: whether an output may keep its content depends on its prompt's fate.
        await self._put_on_disk([event for event in held if event.topic is topics.PROMPTS])
        await self._put_on_disk([event for event in held if event.topic is not topics.PROMPTS])
        self._spooling = True
        self._wake.set()

    async def _put_on_disk(self, held: list[Event]) -> None:
        for event in held:
            event.record = self._losses.bare(event.record)
        taken = await self._disk.put(held)
        for event, fits in zip(held, taken, strict=True):
            if fits:
                self._finish(event, "spool")
            else:
                self._done(event)
                event.settle(SpoolFull("no room for more feedback on disk"))
                if event.kept is None:
                    self._losses.lose(event, "spool_full")

    # -- the drain

    async def _drain(self) -> None:
        pause_s = self._pause_s
        while True:
            await self._wake.wait()
            try:
                await self._link.open()
                await self._drain_some()
                pause_s = self._pause_s
            except (LogError, sqlite3.Error) as error:
                log.warning(
                    "records wait on disk records=%d bytes=%d error=%s",
                    self._disk.records,
                    self._disk.bytes,
                    error,
                )
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, _LONGEST_WAIT_S)
            if self._link.up and not self._disk.records:
                if self._spooling:
                    log.info("records go straight to kafka")
                self._spooling = False
                self._wake.clear()
                self._revive()

    async def _drain_some(self) -> None:
        rows = await self._disk.head()
        failed: BaseException | None = None
        acked = []
        for row, result in await drain.append(self._link, rows):
            if isinstance(result, InvalidRecord | TooLarge):
                # It would stand before all others for ever.
                self._give_up(Event(row.topic, row.record, 0, row.traceparent), result)
            elif isinstance(result, BaseException):
                failed = result
                continue
            acked.append(row.number)
        if acked:
            self._step(4)
            await self._disk.delete(acked)
        if failed is not None:
            raise failed

    # -- accounts

    def _spool_from_now(self, error: BaseException) -> None:
        if not self._spooling:
            log.warning("kafka does not take records, they go to disk error=%s", error)
        self._spooling = True
        self._wake.set()

    def _give_up(self, event: Event, error: InvalidRecord | TooLarge) -> None:
        self._done(event)
        self._losses.give_up(event, error)

    def _done(self, event: Event) -> None:
        self._queued_bytes -= event.bytes
        metrics.QUEUE_BYTES.set(self._queued_bytes)

    def _finish(self, event: Event, where: str) -> None:
        self._done(event)
        metrics.RECORDS.labels(event.topic.name, where).inc()
        event.settle()

    def _revive(self) -> None:
        """Send what is left of lost records, now that there is room."""
        while self._losses.stubs and not self._spooling:
            self._put(self._losses.stubs.popleft())
