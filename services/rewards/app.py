"""The Faust shell around the join: bytes in, table writes, bytes out.

One agent reads all four topics as one stream, so that the join sees one record at a time; there is
a :class:`~services.rewards.join.Join` per assigned partition, rebuilt from the table after every
rebalance. What happens to a record, in order (the names are the steps at which tests kill the
process):

    1 read       decoded; nothing has happened yet
    2 stored     the join put what must be remembered into the table (changelog queued)
    3 emitted    trajectories, receipts, dead letters are queued; Faust may acknowledge the record
    4 flushing   Faust wants to commit: wait until the brokers have everything that was queued
    5 flushed    they have it
    6 committed  the offsets are committed

    revoked, assigned   at the two ends of a rebalance

Delivery is at least once: a kill between any two of these repeats records, and the join repeats
itself to the byte. An exception that nobody expected ends the process: Faust would acknowledge and
commit the record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
import logging
import threading
from typing import Any

from faust.types import TP

from services.rewards import emission, spans
from services.rewards.emission import DeadLetter, Out, Send
from services.rewards.faust_app import SOURCE, new_app
from services.rewards.join import Join
from services.rewards.metrics import Metrics
from services.rewards.offsets import KINDS, Offsets
from services.rewards.outbox import Outbox
from services.rewards.producer import StrictTransport, die
from services.rewards.progress import Progress
from services.rewards.settings import Settings
from services.rewards.spec import Spec
from services.rewards.stall import Stalled
from services.rewards.table import CHANGELOG, TABLE, Table, prepare
from services.rewards.upkeep import Upkeep
from tailrace import events, topics, traces
from tailrace.errors import InvalidRecord, UnknownSchema
from tailrace.log.base import Log, LogRecord
from tailrace.stream import Decoder, dead_letter, event_headers
from tailrace.topics import named
from tailrace.wire import Wire

logger = logging.getLogger(__name__)

_ORIGINAL_TIME = "tailrace-time-ms"
Step = Callable[[str], None]


class Shell:
    """One worker. ``step`` is called at each of the steps above."""

    def __init__(
        self,
        settings: Settings,
        spec: Spec,
        log: Log,
        *,
        metrics: Metrics,
        transport: type[StrictTransport] = StrictTransport,
        outbox: type[Outbox] = Outbox,
        step: Step = lambda name: None,
    ) -> None:
        self._settings = settings
        self._spec = spec
        self._metrics = metrics
        self._step = step
        self._progress = Progress(metrics)
        metrics.table_values.set_function(lambda: sum(table.number for table in self._tables))
        metrics.table_bytes.set_function(lambda: sum(table.size_bytes for table in self._tables))
        self._prefix = settings.prefix
        self._partitions = prepare(log, settings.prefix, spec.lifetime_ms)
        self._wire = Wire(settings.registry)
        self._decoder = Decoder(log, self._wire, prefix=settings.prefix)
        self._kinds = {settings.prefix + kind: kind for kind in KINDS}
        self._joins: dict[int, Join] = {}
        self._tables: list[Table] = []
        self._begun: set[tuple[str, int]] = set()
        """The topics and partitions of which something was read since the assignment."""
        self._outbox = outbox(settings.kafka, die)
        self._traces = traces.start("rewards", settings.otlp_endpoint)
        self.app = new_app(settings, self._partitions, transport, self._outbox, step)
        self._offsets = Offsets(log, self.app.conf.id, settings.prefix)
        self._upkeep = Upkeep(
            *(settings, self._offsets, metrics, self._ready_joins, self._write_tick, self._underway)
        )
        self._assigned = False
        self._table = self.app.Table(
            TABLE,
            partitions=self._partitions,
            key_type=bytes,
            value_type=bytes,
        )
        self._inputs = self._raw(*self._kinds)
        self.app.agent(self._inputs, name="join", concurrency=1)(self._read)
        self.app.on_partitions_revoked.connect(self._on_revoked)
        self.app.on_rebalance_complete.connect(self._on_assigned)

    async def run(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set, then commit and leave the group."""
        starting = asyncio.ensure_future(self.app.start())
        ticking = asyncio.ensure_future(self._upkeep.run())
        sending = asyncio.ensure_future(self._outbox.serve())
        while not stop.is_set():
            self._progress.see(self._values_left())
            if self.app.crashed:
                die("faust crashed", self.app.crash_reason)
            for task in (starting, ticking, sending):
                if task.done() and task.exception() is not None:
                    die("the worker could not go on", task.exception())
            await asyncio.sleep(0.1)
        ticking.cancel()
        starting.cancel()
        await asyncio.wait((ticking, starting))
        await self.app.stop()
        sending.cancel()
        await asyncio.wait((sending,))
        self._offsets.close()
        if self._traces is not None:
            self._traces.close()

    def ready(self) -> str | None:
        """Why this worker cannot join just now; None: it can."""
        if self._underway() is not None:
            return self._progress.reason() or "rebalancing"
        return self._upkeep.blocked() if self._joins else "no partitions"

    def _values_left(self) -> int | None:
        """Values of the table that are still to be read; None: there is no recovery."""
        return self.app.tables.recovery.active_remaining_total() if self.app.in_recovery else None

    def _underway(self) -> object | None:
        """How far the assignment is that has to end before this worker can join; None: it has."""
        if self._assigned and not self.app.rebalancing and not self.app.in_recovery:
            return None
        return f"rebalance {self.app.rebalancing_count}, values left {self._values_left()}"

    def _raw(self, *names: str) -> Any:
        return self.app.topic(
            *names,
            key_type=bytes,
            value_type=bytes,
            key_serializer="raw",
            value_serializer="raw",
            allow_empty=True,
        )

    async def _read(self, stream: Any) -> None:
        async for event in stream.events():
            message = event.message
            try:
                await self._handle(message)
            except BaseException as error:  # whatever it is, Faust would commit past the record
                die(f"{message.topic}/{message.partition}/{message.offset}", error)

    async def _handle(self, message: Any) -> None:
        kind = self._kinds[message.topic]
        record = self._record(message)
        if (kind, record.partition) not in self._begun:
            await self._begin(kind, record)
        decoded: events.Struct | InvalidRecord
        try:
            decoded = await self._decode(kind, record)
        except InvalidRecord as error:
            decoded = error
        # From here on nothing is awaited between reading the table and writing it.
        self._step("read")
        join = self._joins[record.partition]
        out: list[Out] = []
        gap = self._upkeep.take_gap(record.partition)
        if gap is not None:
            out += join.on_gap(*gap)
        if isinstance(decoded, InvalidRecord):
            out += join.on_refused(record, kind, decoded)
            if isinstance(decoded, UnknownSchema) and kind == "feedback":
                # Read again, its schema may be known: the refusal must be kept before it is told.
                await self._outbox.flush()
        else:
            out += join.on_record(record, kind, decoded)
        self._step("stored")
        for item in out:
            self._emit(item)
        self._metrics.records.labels(kind).inc()
        self._step("emitted")

    async def _begin(self, kind: str, record: LogRecord) -> None:
        """Nothing but control records may lie between where reading goes on and the first record.

        A join takes what it is not given for a gap. See :mod:`services.rewards.consumer`.
        """
        start = self._joins[record.partition].positions[kind]
        if record.offset > start:
            place = (kind, record.partition, start, record.offset)
            loop = asyncio.get_running_loop()
            found = await loop.run_in_executor(None, self._offsets.gap_end, *place)
            if found < record.offset:
                raise Stalled(f"{kind} {record.partition}/{found} was passed over")
        self._begun.add((kind, record.partition))

    def _record(self, message: Any) -> LogRecord:
        headers = {name: value or b"" for name, value in message.headers or ()}
        time_ms = round(message.timestamp * 1000)
        if self._settings.replay and headers.get(_ORIGINAL_TIME, b"").isdigit():
            time_ms = int(headers[_ORIGINAL_TIME])
        return LogRecord(
            topic=message.topic,
            partition=message.partition,
            offset=message.offset,
            time_ms=time_ms,
            key=message.key,
            value=message.value,
            headers=headers,
        )

    async def _decode(self, kind: str, record: LogRecord) -> events.Struct:
        row = topics.by_name(kind).record
        assert row is not None
        try:
            return self._wire.decode(row, record.value, record.headers, time_ms=record.time_ms)
        except UnknownSchema:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(None, self._decoder.decode, record)

    def _emit(self, item: Out) -> None:
        if isinstance(item, DeadLetter):
            self._bury(item)
            return
        topic = topics.TRAJECTORIES
        if isinstance(item.record, events.Receipt):
            topic = topics.RECEIPTS
            self._metrics.receipts.labels(item.record.outcome).inc()
        else:
            self._metrics.trajectories.labels(emission.kind_of(item.record)).inc()
            if self._traces is not None:
                spans.joined(self._traces, item)
        self._send(topic, item)

    def _send(self, topic: topics.Topic, item: Send) -> None:
        key = (item.key or b"").decode(errors="replace")
        headers = event_headers(item.record, key, SOURCE)
        if item.traceparent:
            headers["traceparent"] = item.traceparent.encode()
        value = self._wire.encode(item.record)
        self._outbox.append(named(topic, self._prefix), item.partition, item.key, value, headers)

    def _bury(self, letter: DeadLetter) -> None:
        record = letter.record
        logger.warning(
            "dead letter topic=%s partition=%d offset=%d reason=%s detail=%r",
            *(record.topic, record.partition, record.offset, letter.reason, letter.detail[:200]),
        )
        self._metrics.dead_letters.labels(self._kinds[record.topic], letter.reason).inc()
        value, headers = dead_letter(record, letter.reason, letter.detail)
        topic = named(topics.DEAD_LETTERS, self._prefix)
        self._outbox.append(topic, 0, record.key, value, headers)

    async def _on_revoked(self, app: Any, revoked: set[TP], **_: Any) -> None:
        """All that was read is flushed and committed; joins are made anew after the rebalance."""
        self._joins.clear()
        self._tables = []
        self._assigned = False
        self._step("revoked")

    async def _on_assigned(self, app: Any, **_: Any) -> None:
        """The table is recovered and nothing is being read: build the joins."""
        assigned = {tp.partition for tp in app.consumer.assignment() if tp.topic in self._kinds}
        loop = asyncio.get_running_loop()
        committed = await loop.run_in_executor(None, self._offsets.committed, assigned)
        self._joins, self._tables = {}, []
        items: dict[int, list[tuple[bytes, bytes]]] = {partition: [] for partition in assigned}
        data = self._table.data
        for key, value in list(data.items()):
            partition = int(key.split(b"/", 1)[0])
            if partition in items:
                items[partition].append((key, value))
            else:
                del data[key]  # another worker's now: only this copy goes, not the changelog's
        changelog = named(CHANGELOG, self._prefix)
        for partition in sorted(assigned):
            table = Table(data, self._outbox, changelog, partition, items[partition])
            self._tables.append(table)
            self._joins[partition] = Join(self._spec, partition, self._partitions, table)
        for partition, join in self._joins.items():
            join.restore(items[partition], committed[partition])
        self._upkeep.reset()
        self._begun.clear()
        self._assigned = True
        logger.info(
            "assigned partitions=%s values=%d", sorted(assigned), sum(map(len, items.values()))
        )
        self._step("assigned")

    async def _write_tick(self, tick: events.Tick) -> tuple[int, int]:
        key = str(tick.partition)
        return await self._outbox.append_and_wait(
            *(named(topics.TICKS, self._prefix), tick.partition, key.encode()),
            self._wire.encode(tick),
            event_headers(tick, key, SOURCE),
        )

    def _ready_joins(self) -> dict[int, Join]:
        return {} if self._underway() is not None else self._joins
