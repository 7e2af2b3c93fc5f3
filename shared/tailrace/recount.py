"""Feeds an :class:`~tailrace.audit.Audit` from a log, once or again and again.

In: the log. Out: an Audit that holds what is on it; :func:`in_a_line` says its report in short.
Each :meth:`Reader.read` goes on where the last one ended. Releases come first, then the manifests
that they name (their transactions decided), then the end offsets of everything are fixed, subjects
before their receipts, then it is all read: so a report never misses what the log had. Called by
:func:`tailrace.audit.read` and ``tailrace audit --follow``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
import time

from tailrace import topics
from tailrace.audit import Audit
from tailrace.deadline import Deadline
from tailrace.errors import InvalidRecord
from tailrace.events import ModelUpdate, Receipt, Release, Step, Tick, Trajectory
from tailrace.log.base import Log, LogRecord
from tailrace.report import Report
from tailrace.seek import records_at
from tailrace.stream import Decoder, read_all
from tailrace.topics import Topic, named
from tailrace.weights.trust import Trust
from tailrace.wire import Wire

SUBJECTS_FIRST = (
    topics.FEEDBACK,
    topics.TRAJECTORIES,
    topics.TICKS,
    topics.STEPS,
    topics.RECEIPTS,
    topics.DEAD_LETTERS,
)
"""Once the decisions are read, the ends of these are fixed in this order."""


class Reader:
    """One model's account of one log. What is below the low watermarks is out of it."""

    def __init__(
        self,
        log: Log,
        wire: Wire,
        *,
        model: str,
        prefix: str = "",
        deadline: Deadline | None = None,
        trust: Iterable[Path | str] = (),
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """``trust``: files of public keys; none: signatures are not looked at. Raises SettingsError
        for a key file that is none."""
        self._wall_ms = wall_ms
        self._audit = Audit(model, deadline or Deadline())
        self._log = log
        self._decoder = Decoder(log, wire, prefix=prefix)
        files = tuple(trust)
        self._trust = Trust(files) if files else None
        self._model = model
        self._prefix = prefix
        self._read_to: dict[str, dict[int, int]] = {}
        self._receipts_from: dict[int, int] = {}

    def read(self) -> Audit:
        """The audit, fed with everything that is on the log now. Raises LogError; may be called
        again after that."""
        for record in self._rest(topics.RELEASES):
            self._feed(topics.RELEASES, record)
        for record in self._rest(topics.MODEL_UPDATES):
            self._update(record)
        fixed = {topic: self._log.ends(named(topic, self._prefix)) for topic in SUBJECTS_FIRST}
        for topic in (topics.FEEDBACK, topics.TRAJECTORIES):
            starts = self._log.starts(named(topic, self._prefix))
            self._audit.bounds(topic.name, starts, fixed[topic])
        self._forget()
        chunks = named(topics.MODEL_CHUNKS, self._prefix)
        self._audit.chunk_bounds(self._log.starts(chunks)[0], self._log.ends(chunks)[0])
        for topic, ends in fixed.items():
            for record in self._rest(topic, ends):
                self._feed(topic, record)
        return self._audit

    def _rest(self, topic: Topic, ends: Mapping[int, int] | None = None) -> Iterator[LogRecord]:
        """What was not read yet. Each record counts as read once the next one is asked for, so a
        round that breaks off is gone on with."""
        name = named(topic, self._prefix)
        read_to = self._read_to.setdefault(name, {})
        ends = self._log.ends(name) if ends is None else ends
        for record in read_all(
            self._log, name, starts=read_to, ends=ends, committed_only=topic.transactional
        ):
            yield record
            read_to[record.partition] = record.offset + 1
        for partition, end in ends.items():
            read_to[partition] = max(end, read_to.get(partition, 0))

    def _forget(self) -> None:
        """Say up to when receipts may be gone, of partitions that lost some since the last time: to
        the first one that is kept, and where none is, by the time for which the log keeps them."""
        name = named(topics.RECEIPTS, self._prefix)
        known = self._receipts_from
        moved = [
            (name, p, low) for p, low in self._log.starts(name).items() if low > known.get(p, 0)
        ]
        if not moved:
            return
        found, kept_ms = records_at(self._log, moved), self._log.retention_ms(name)
        for spot in moved:
            _, partition, low = spot
            if spot in found:
                self._audit.receipts_from(partition, found[spot].time_ms)
            elif kept_ms is not None:
                self._audit.receipts_from(partition, self._wall_ms() - kept_ms)
            known[partition] = low

    def _update(self, record: LogRecord) -> None:
        signed = self._trust is None or self._trust.signed(record.value, record.headers)
        try:
            event = self._decoder.decode(record)
        except InvalidRecord:
            if signed and record.key == self._model.encode():
                self._audit.unreadable_update(record.partition, record.offset)
            return
        assert isinstance(event, ModelUpdate)
        self._audit.update(event, signed)

    def _feed(self, topic: Topic, record: LogRecord) -> None:
        if topic is topics.FEEDBACK:
            self._audit.feedback(record.partition, record.offset, record.time_ms)
            return
        if topic is topics.DEAD_LETTERS:
            self._audit.dead_letter(record.headers, prefix=self._prefix)
            return
        try:
            event = self._decoder.decode(record)
        except InvalidRecord:
            event = None
        match event:
            case Trajectory() | None if topic is topics.TRAJECTORIES:
                self._audit.trajectory(record.partition, record.offset, record.time_ms, event)
            case Receipt():
                self._audit.receipt(event)
            case Step():
                self._audit.step(event)
            case Tick():
                self._audit.tick(event)
            case Release():
                self._audit.release(event)


def in_a_line(report: Report, now_ms: int) -> str:
    """The report of one moment: in = outcomes + in flight + missing (+ forgotten), of both
    accounts."""
    clock = datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%H:%M:%S")
    accounts = []
    for name, account in (("feedback", report.feedback), ("trajectories", report.trajectories)):
        said = [f"{outcome} {count}" for outcome, count in account.outcomes.items()]
        said += [f"in flight {account.in_flight}", f"missing {account.missing}"]
        said += [f"forgotten {account.forgotten}"] if account.forgotten else []
        accounts.append(f"{name} {account.records} = {' + '.join(said)}")
    problems = f"{len(report.problems)} problems" if report.problems else "balanced"
    return "; ".join([f"{clock} head {report.head}", *accounts, problems])
