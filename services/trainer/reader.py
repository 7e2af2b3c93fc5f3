"""What comes off the log: trajectories into the intake, commands to whoever asks.

Trajectories are read uncommitted, as their writer sends them; what cannot be read is buried and
still gets its decision. A freeze holds until a thaw, over restarts too: at its start the reader
goes through ``control`` from the beginning. Each is answered on ``alarms``, the last one again at a
start. Drains and keyframes are ordered of who is there to hear it.

Called by :mod:`services.trainer.trainer`; for one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
import logging
from typing import Protocol

from services.trainer import metrics
from services.trainer.account import Decision
from services.trainer.intake import Intake
from services.trainer.records import frozen_of
from services.trainer.report import say
from tailrace import topics
from tailrace.errors import InvalidRecord, LogError
from tailrace.events import Command, Trajectory
from tailrace.log.base import Log, LogRecord, Position
from tailrace.stream import Decoder, Writer, read_all
from tailrace.topics import named
from tailrace.wire import Wire

_log = logging.getLogger(__name__)
_ACK_TIMEOUT_S = 90.0
"""Longer than an append waits for the log."""
_POLL_RECORDS = 500
_POLLS = 20
"""Of one read at most, so that a backlog does not keep the trainer from training."""


class Source(Protocol):
    """What a reader asks of a :class:`tailrace.log.base.Consumer`."""

    def assign(self, positions: Mapping[tuple[str, int], int]) -> None:
        """Read these from these offsets."""

    def poll(self, timeout_s: float, max_records: int = 500) -> list[LogRecord]:
        """Records that are there."""

    def position(self, topic: str, partition: int) -> int:
        """The offset that is read next."""

    def close(self) -> None:
        """Let go."""


class Reader:
    """Reads on where the intake stands."""

    def __init__(
        self,
        log: Log,
        wire: Wire,
        *,
        model: str,
        prefix: str,
        intake: Intake,
        writer: Writer,
        clock: Callable[[], float],
        wall_ms: Callable[[], int],
        consumer_of: Callable[[Log], Source],
    ) -> None:
        self._log, self._model = log, model
        self._intake, self._ranges, self._writer = intake, intake.ranges, writer
        self._prefix = prefix
        self._clock, self._wall_ms = clock, wall_ms
        self._topic = named(topics.TRAJECTORIES, prefix)
        self._control = named(topics.CONTROL, prefix)
        self._decoder = Decoder(log, wire, prefix=prefix)
        self._buried: list[Future[Position]] = []
        self._consumer = consumer_of(log)
        self._expire(log.starts(self._topic))
        at = {(self._topic, p): start for p, start in self._ranges.starts().items()}
        self.frozen = False
        """Whether the last order was to freeze: nothing is to be trained."""
        self.keyframe = False
        """Whether a keyframe was ordered; false again when whoever asked has published one."""
        metrics.FROZEN.set(False)
        ends = log.ends(self._control)
        self._recall(read_all(log, self._control, ends=ends))
        self._consumer.assign(at | {(self._control, p): end for p, end in ends.items()})

    def read(self, wait_s: float) -> bool:
        """Offer what is there. Returns whether a drain was ordered."""
        drain = False
        for poll in range(_POLLS):
            records = self._consumer.poll(0.0 if poll else wait_s, _POLL_RECORDS)
            for record in records:
                if record.topic == self._control:
                    drain |= self._obey(record)
                else:
                    self._offer(record)
            if not records:
                break
        at = {p: self._consumer.position(self._topic, p) for p in self._ranges.starts()}
        if any(position > self._ranges.next_offset(p) for p, position in at.items()):
            self._expire(self._log.starts(self._topic))
        for partition, position in at.items():
            self._ranges.advance(partition, position)
        return drain

    def ends(self) -> dict[int, int]:
        """The end of each partition now."""
        return self._log.ends(self._topic)

    def reached(self, ends: Mapping[int, int]) -> bool:
        """Whether everything below these ends was read."""
        return all(self._consumer.position(self._topic, p) >= end for p, end in ends.items())

    def flush(self) -> None:
        """Until every dead letter is on the log: a receipt says that it is. Raises LogError."""
        try:
            for letter in self._buried:
                letter.result(_ACK_TIMEOUT_S)
        except TimeoutError:
            raise LogError(f"a dead letter is not acknowledged in {_ACK_TIMEOUT_S:g} s") from None
        self._buried = []

    def close(self) -> None:
        """Let go of the consumer."""
        self._consumer.close()

    def _offer(self, record: LogRecord) -> None:
        if record.offset > self._ranges.next_offset(record.partition):
            # A jump: control records, or the log was trimmed under us.
            self._expire(self._log.starts(self._topic))
        held = self._ranges.take((record.partition, record.offset))
        if held is None:
            return  # the base decided it: it lies between held ones
        metrics.LAG_S.set(max(0, self._wall_ms() - record.time_ms) / 1000)
        trajectory = None
        try:
            event = self._decoder.decode(record)
            assert isinstance(event, Trajectory)
            trajectory = event
        except InvalidRecord as error:
            self._bury(record, error)
        count(self._intake.offer(record, trajectory, self._clock(), held=held))

    def _recall(self, records: Iterable[LogRecord]) -> None:
        """What was ordered before this start: of it only a freeze still holds."""
        last: tuple[LogRecord, Command] | None = None
        for record in records:
            try:
                command = self._decoder.decode(record)
            except InvalidRecord as error:
                _log.warning("invalid topic=%s offset=%d: %s", record.topic, record.offset, error)
                continue
            assert isinstance(command, Command)
            if command.model == self._model and command.command in ("freeze", "thaw"):
                last = record, command
        if last is not None:
            self._freeze(*last)

    def _obey(self, record: LogRecord) -> bool:
        """Do what is ordered. Returns whether it is a drain."""
        try:
            command = self._decoder.decode(record)
        except InvalidRecord as error:
            self._bury(record, error)
            return False
        assert isinstance(command, Command)
        word = command.command
        if command.model != self._model:
            metrics.COMMANDS.labels("other_model").inc()
            return False
        if word in ("rollback", "pin", "follow"):  # comes to us as a release
            metrics.COMMANDS.labels("releases").inc()
            return False
        if word not in ("drain", "freeze", "thaw", "keyframe"):
            metrics.COMMANDS.labels("unknown").inc()
            where = (record.topic, record.partition, record.offset)
            _log.warning(
                "command ignored topic=%s partition=%d offset=%d command=%.40r: a trainer takes "
                "freeze, thaw, drain and keyframe",
                *where,
                word,
            )
            return False
        metrics.COMMANDS.labels(word).inc()
        if word == "keyframe":
            self.keyframe = True
        elif word != "drain":
            self._freeze(record, command)
        return word == "drain"

    def _freeze(self, record: LogRecord, command: Command) -> None:
        self.frozen = command.command == "freeze"
        metrics.FROZEN.set(self.frozen)
        where = (record.topic, record.partition, record.offset)
        by = (command.principal, command.reason)
        shown = "frozen" if self.frozen else "thawed"
        _log.warning(f"{shown} topic=%s partition=%d offset=%d principal=%s reason=%s", *where, *by)
        say(self._writer, frozen_of(command, record.offset, now_ms=self._wall_ms()))

    def _bury(self, record: LogRecord, error: InvalidRecord) -> None:
        where = (record.topic, record.partition, record.offset)
        _log.warning("invalid topic=%s partition=%d offset=%d: %s", *where, error)
        metrics.DEAD_LETTERS.labels(record.topic.removeprefix(self._prefix), error.reason).inc()
        # What is on the log is not waited for: strangers may write much that nobody decides.
        self._buried = [one for one in self._buried if not one.done() or one.exception()]
        self._buried.append(self._writer.bury(record, error.reason, str(error)))

    def _expire(self, lows: Mapping[int, int]) -> None:
        lost = self._ranges.expire(lows)
        if lost:
            metrics.EXPIRED.inc(lost)
            _log.warning("expired topic=%s records=%d", self._topic, lost)


def count(decisions: Sequence[Decision]) -> None:
    """Every decision has its counter."""
    for decision in decisions:
        metrics.decided(decision.outcome, decision.reason or "")
