"""The loop: reads outputs, feedback and trajectories, asks the bank, sends its alarms.

One round: the clock is read, then (once everything known was read) the end offsets, then what is
there; :mod:`.merge` says what is due; its values go through the bank; alarms are sent. Every
``checkpoint_s`` the commit, in numbered steps that a crash may fall between:

1. all alarms so far are handed to the producer
2. they are acknowledged
3. - 5. the checkpoint is on disk (:func:`services.drift.state.save`)

Invariant: a checkpoint covers only records whose alarms were acknowledged. So alarms are sent at
least once, and one that is sent again has the same stream, detector, state and source.
Called by ``__main__``; tests drive :meth:`Drift.step` with a log in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import logging
from pathlib import Path
import time

from prometheus_client import Counter, Gauge

from services.drift import state, streams
from services.drift.bank import Bank
from services.drift.merge import Done, Merge, Place
from tailrace import topics
from tailrace.errors import InvalidRecord
from tailrace.events import Alarm, Coordinates
from tailrace.log.base import Log, LogRecord
from tailrace.stream import Decoder, Writer
from tailrace.topics import named

INPUTS = (topics.OUTPUTS, topics.FEEDBACK, topics.TRAJECTORIES)
_ROOM = 2000
"""Records that are held back of a partition before it waits for the others."""

RECORDS = Counter("tailrace_drift_records", "Records read", ["topic"])
SKIPPED = Counter("tailrace_drift_skipped_records", "Records without values", ["topic", "reason"])
VALUES = Counter("tailrace_drift_values", "Values given to the detectors", ["stream"])
ALARMS = Counter("tailrace_drift_alarms", "Alarms sent", ["stream", "detector", "state"])
MUTED = Counter("tailrace_drift_muted_alarms", "Alarms made again in a rebuild, not sent")
REBUILDS = Counter("tailrace_drift_rebuilds", "Checkpoints whose detectors were not for us")
FIRING = Gauge("tailrace_drift_firing_ratio", "1 while a detector fires", ["stream", "detector"])
LEVEL = Gauge(
    "tailrace_drift_level_value",
    "What a detector sees now, in the unit of its stream",
    ["stream", "detector"],
)
LAG_S = Gauge("tailrace_drift_lag_seconds", "Age of the newest record seen")
CHECKPOINT_S = Gauge("tailrace_drift_checkpoint_seconds", "How long the last checkpoint took")
_log = logging.getLogger(__name__)


class Drift:
    """The process without its settings and signals. For one thread.

    End offsets are asked for every ``ask_s`` at most: each is six requests. ``reached`` is told the
    numbered steps of each commit (tests end the process there).
    """

    def __init__(
        self,
        log: Log,
        decoder: Decoder,
        writer: Writer,
        bank: Bank,
        folder: Path,
        *,
        prefix: str = "",
        skew_s: float = 2.0,
        checkpoint_s: float = 10.0,
        ask_s: float = 0.5,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        reached: Callable[[int], None] = lambda step: None,
    ) -> None:
        self._log, self._decoder, self._writer = log, decoder, writer
        self._folder, self._prefix = folder, prefix
        self._skew_ms, self._checkpoint_ms = int(skew_s * 1000), int(checkpoint_s * 1000)
        self._ask_ms, self._asked_ms = int(ask_s * 1000), 0
        self._clock_ms, self._reached = clock_ms, reached
        self._topics = [named(topic, prefix) for topic in INPUTS]
        done = self._at(log.starts)
        self._bank = bank
        self._sent: Mapping[Place, Done] = {}
        """Alarms of records before these were sent by a bank whose state is not for us."""
        found = state.load(folder, bank.parameters)
        if found and self._is_of_this_log(found.header.places()):
            if found.bank:
                self._bank, done = found.bank, found.header.places()
            else:
                self._sent = found.header.places()
                REBUILDS.inc()
        self._merge = Merge(done)
        self._positions = {place: d.offset for place, d in done.items()}
        self._consumer = log.consumer()
        self._assigned: set[Place] = set()
        self._safe_ms = 0
        self._ends: dict[Place, int] = {}
        self._checkpointed = dict(done)
        self._checkpointed_ms = clock_ms()
        self.caught_up = False
        """Whether everything that was there at some moment has been seen."""
        _log.info("drift resumed=%s offsets=%s", self._bank is not bank, self._positions)

    def step(self, timeout_s: float) -> int:
        """One round; waits at most ``timeout_s`` for records. The number of records handed on.

        Raises LogError when the log does not answer.
        """
        now_ms = self._clock_ms()
        if not self._behind() and now_ms - self._asked_ms >= self._ask_ms:
            # The clock first: what is appended after these ends is not older than it.
            self._asked_ms, self._safe_ms = now_ms, now_ms - self._skew_ms
            self._ends = {place: end.offset for place, end in self._at(self._log.ends).items()}
        self._read(timeout_s)
        count = 0
        for time_ms, record in self._merge.ready(self._safe_ms, self._behind()):
            count += 1
            self._observe(time_ms, record)
        if not self._behind():
            self.caught_up = True
        for watch in self._bank.watches():
            FIRING.labels(watch.stream, watch.detector.name).set(watch.firing)
            LEVEL.labels(watch.stream, watch.detector.name).set(watch.detector.level)
        if self._clock_ms() - self._checkpointed_ms >= self._checkpoint_ms:
            self.commit()
        return count

    def commit(self) -> None:
        """Acknowledge alarms, then put detectors and offsets on disk. Raises LogError, OSError."""
        self._checkpointed_ms = self._clock_ms()
        if self._merge.done == self._checkpointed:
            return
        began = time.monotonic()
        self._reached(1)
        self._writer.producer.flush()
        self._reached(2)
        state.save(self._folder, self._bank, self._merge.done, self._reached)
        self._checkpointed = dict(self._merge.done)
        CHECKPOINT_S.set(time.monotonic() - began)

    def close(self) -> None:
        """Commit and let go of the log."""
        self.commit()
        self._consumer.close()

    def _at(self, offsets: Callable[[str], dict[int, int]]) -> dict[Place, Done]:
        return {(t, p): Done(offset, 0) for t in self._topics for p, offset in offsets(t).items()}

    def _is_of_this_log(self, places: Mapping[Place, Done]) -> bool:
        ends = self._at(self._log.ends)
        same = places.keys() == ends.keys()
        if same and all(places[place].offset <= ends[place].offset for place in ends):
            return True
        _log.warning("checkpoint of another log places=%s", sorted(places))
        return False

    def _behind(self) -> set[Place]:
        return {place for place, end in self._ends.items() if self._positions[place] < end}

    def _read(self, timeout_s: float) -> None:
        wanted = self._merge.wanted(_ROOM, self._safe_ms, self._behind())
        if wanted != self._assigned:
            self._consumer.assign({place: self._positions[place] for place in wanted})
            self._assigned = wanted
        for record in self._consumer.poll(timeout_s):
            self._merge.add(record)
        for topic, partition in self._assigned:
            self._positions[topic, partition] = self._consumer.position(topic, partition)

    def _observe(self, time_ms: int, record: LogRecord) -> None:
        RECORDS.labels(record.topic.removeprefix(self._prefix)).inc()
        LAG_S.set(max(0, self._clock_ms() - time_ms) / 1000)
        try:
            found = streams.values(self._decoder.decode(record))
        except InvalidRecord as error:
            # Rewards is the one to bury it; here it is only no number.
            return self._skip(record, error.reason, error)
        except ValueError as error:
            return self._skip(record, "torn", error)
        source = Coordinates(topic=record.topic, partition=record.partition, offset=record.offset)
        for stream, value in found:
            if not streams.usable(value):
                self._skip(record, "out_of_range", ValueError(f"{stream} {value}"))
                continue
            VALUES.labels(stream).inc()
            for alarm in self._bank.observe(stream, value, time_ms, source):
                self._send(alarm)

    def _send(self, alarm: Alarm) -> None:
        assert alarm.source is not None
        sent = self._sent.get((alarm.source.topic, alarm.source.partition))
        if sent is not None and alarm.source.offset < sent.offset:
            MUTED.inc()
            return
        self._writer.write(topics.ALARMS, alarm)
        ALARMS.labels(alarm.stream, str(alarm.detector), alarm.state).inc()
        where = f"{alarm.source.topic}/{alarm.source.partition}/{alarm.source.offset}"
        _log.warning("alarm state=%s source=%s message=%s", alarm.state, where, alarm.message)

    def _skip(self, record: LogRecord, reason: str, error: Exception) -> None:
        SKIPPED.labels(record.topic.removeprefix(self._prefix), reason).inc()
        where = f"{record.topic}/{record.partition}/{record.offset}"
        _log.warning("record skipped source=%s reason=%s", where, error)
