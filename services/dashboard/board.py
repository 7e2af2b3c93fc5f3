"""The whole picture, kept up record by record. Pure: records and a clock in, sections out.

    record ─> watch (every record) ─> satisfaction, delay, timeline, fleet, conservation, recent
                                                        │
                              sections(now) <───────────┘

Topics may come in any order, each partition in its own; the same record again changes nothing that
is an account. What cannot be read counts as that and goes on. State is bounded by the settings, and
what a bound made it forget is counted under ``drops``. For one thread, but for
:attr:`Board.recent` and :attr:`Board.tails`, which requests read.
Called by :mod:`services.dashboard.reader`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from services.dashboard.conservation import Answers, Decisions, Tally, late
from services.dashboard.delay import Delay
from services.dashboard.fleet import Fleet
from services.dashboard.learning import Section
from services.dashboard.recent import Recent
from services.dashboard.satisfaction import Satisfaction
from services.dashboard.settings import Settings
from services.dashboard.system import Account, Drop, Lag, Traffic
from services.dashboard.tailing import Event, Tail
from services.dashboard.timeline import Timeline
from services.dashboard.watch import Flow, Watched, Writers
from tailrace import topics
from tailrace.deadline import Deadline
from tailrace.errors import InvalidRecord
from tailrace.events import (
    Alarm,
    Feedback,
    ModelAck,
    ModelUpdate,
    Output,
    Prompt,
    Receipt,
    Release,
    Step,
    Tick,
    Trajectory,
)
from tailrace.log.base import LogRecord
from tailrace.topics import Topic

READ = tuple(topic for topic in topics.TOPICS if topic is not topics.MODEL_CHUNKS)
"""All but raw weights, whose manifests say what they are."""
_GRACE_MS = 30_000
"""How long after a manifest its receipts may still come: they are of one transaction."""
_GRADERS = 20
"""Graders whose groups are asked after."""
_SLOW_MS = 5_000
"""How often the timeline is made anew for figures that every answer moves."""


class Board:
    """Feed it, then ask for the :meth:`sections`."""

    def __init__(self, settings: Settings, *, cursors: int = 0) -> None:
        """``cursors``: where those of the tails begin, see :class:`Tail`."""
        self.drops: Counter[str] = Counter()
        self.flows = {topic: Flow(topic) for topic in READ}
        self.tails = {topic.name: Tail(topic, settings, cursors) for topic in READ}
        self.recent = Recent(settings, self.drops)
        self._satisfaction = Satisfaction(settings, self.drops)
        self._delay = Delay(settings, self.drops)
        self._timeline = Timeline(settings, self.drops)
        self._fleet = Fleet(settings, self.drops)
        self._alarms, self._writers = Watched(settings, self.drops), Writers(self.drops)
        bounds = (settings.in_flight_limit, settings.remembered, self.drops)
        self._answers = Answers(*bounds)
        self._feedback = Tally("feedback", *bounds)
        self._decisions = Decisions("trajectories", *bounds)
        self._deadline = Deadline(ticked_s=settings.decide_within_s)
        self._given_up_ms = round(settings.decide_within_s * 1000)
        """An answer that waits longer has no prompt: rewards gives it up without a word."""
        self._prefix, self._model = settings.prefix, settings.model
        self._since_ms: int | None = None
        self._newest_ms: int | None = None
        self._slow_ms = 0
        self._moved = False
        """Whether manifests or releases came since it was looked at who is rolled back."""
        self._answered: int | None = None
        """Offset on control of the newest order that a release answers."""
        self._graders: dict[str, None] = {}
        """The one heard last at the end."""

    def begin(self, topic: Topic, partition: int, offset: int) -> None:
        """Reading of a partition begins here."""
        if topic is topics.FEEDBACK:
            self._feedback.begin(partition, offset)
        elif topic is topics.TRAJECTORIES:
            self._decisions.begin(partition, offset)

    def on_record(self, topic: Topic, record: LogRecord, event: Event) -> None:
        """One record: what it says, why it cannot be read, or None where values are raw bytes."""
        readable = not isinstance(event, InvalidRecord)
        self.flows[topic].record(record.time_ms, readable)
        self.tails[topic.name].put(record, event)
        self._writers.record(record, topic.name)
        self._newest_ms = max(self._newest_ms or 0, record.time_ms)
        place, time_ms = (record.partition, record.offset), record.time_ms
        if topic is topics.FEEDBACK:
            self._began(time_ms)
            self._feedback.record(place, time_ms)
            self._delay.feedback(place, time_ms)
        elif topic is topics.TRAJECTORIES:
            self._began(time_ms)
            self._decisions.record(place, time_ms)
        elif topic is topics.OUTPUTS and not readable:
            self._answers.output(None, time_ms)
        elif topic is topics.DEAD_LETTERS:
            self._letter(record)
        match event:
            case Prompt():
                self.recent.prompt(event, time_ms)
            case Output():
                self._answers.output((event.interaction_id, event.choice), time_ms)
                self._fleet.output(event, time_ms)
                self._timeline.output(event.weight_versions)
                self.recent.output(event, time_ms)
            case Feedback():
                self._timeline.feedback(event)
                if event.source == "grader" and event.grader:
                    self._grader(event.grader)
                self.recent.feedback(event, time_ms)
            case Trajectory():
                self._trajectory(event, place, time_ms)
            case Receipt():
                self._receipt(event, time_ms)
            case Step():
                self._timeline.step(event)
            case ModelUpdate():
                if self._timeline.update(event, time_ms):
                    self._moved = True
                    if event.kind != "adapter":
                        self._decisions.published(event, time_ms)
            case Release():
                self._timeline.release(event)
                self._moved = True
                if event.model == self._model and event.command is not None:
                    self._answered = max(self._answered or 0, event.command.offset)
            case ModelAck():
                self._fleet.ack(event, time_ms)
                self._timeline.ack(event, time_ms)
                if event.model in (None, self._model):
                    self._withdraw()
                    self._delay.ack(event, time_ms)
            case Alarm():
                self._alarms.alarm(event, time_ms)
            case Tick():
                self._deadline.tick(event.partition, event.event_time_ms)

    def _grader(self, name: str) -> None:
        self._graders.pop(name, None)
        self._graders[name] = None
        if len(self._graders) > _GRADERS:
            del self._graders[next(iter(self._graders))]
            self.drops["grader beyond those that are asked after"] += 1

    def _began(self, time_ms: int) -> None:
        self._since_ms = time_ms if self._since_ms is None else min(self._since_ms, time_ms)

    def _trajectory(self, event: Trajectory, place: tuple[int, int], time_ms: int) -> None:
        self._deadline.acted(place[0], event.event_time_ms)
        self._satisfaction.trajectory(event, time_ms)
        self._timeline.trajectory(event)
        self.recent.trajectory(event, time_ms)
        if event.revision == 0:
            key = (event.interaction_id, event.choice)
            self._answers.trajectory(key, event.output_log_time_ms)

    def _receipt(self, event: Receipt, time_ms: int) -> None:
        place = (event.source.partition, event.source.offset)
        if event.stage == "rewards":
            self._feedback.outcome(place, event.outcome)
        elif event.model in (None, self._model):
            self._withdraw()
            self._decisions.outcome(place, event.outcome, event.version)
        else:
            return
        self._delay.receipt(event, time_ms)
        self.recent.receipt(event)

    def _withdraw(self) -> None:
        """Versions that are rolled back decide nothing and serve nobody."""
        if self._moved:
            self._moved = False
            withdrawn = self._timeline.withdrawn()
            self._decisions.withdraw(withdrawn)
            self._delay.withdraw(withdrawn)

    def _letter(self, record: LogRecord) -> None:
        """A dead letter is the outcome of what could not be read."""
        source = record.headers.get("tailrace-source", b"").decode(errors="replace")
        try:
            name, partition, offset = source.rsplit("/", 2)
            place = (int(partition), int(offset))
        except ValueError:
            self.drops["dead letter without a source"] += 1
            return
        name = name.removeprefix(self._prefix)
        if name == topics.FEEDBACK.name:
            self._feedback.outcome(place, "invalid")
        elif name == topics.TRAJECTORIES.name:
            self._decisions.outcome(place, "dead_letter")

    def sections(self, now_ms: int) -> dict[str, Section]:
        """Those that may have changed since the last call, by name; ``now_ms``: wall clock."""
        slow = now_ms - self._slow_ms >= _SLOW_MS
        if slow:
            self._slow_ms = now_ms
            self._answers.expire((self._newest_ms or 0) - self._given_up_ms)
        self._withdraw()
        parts: list[tuple[str, bool, Callable[[], Section]]] = [
            ("reward", self._satisfaction.dirty, self._satisfaction.section),
            ("latency", self._delay.dirty, self._delay.section),
            ("versions", self._timeline.dirty or slow, lambda: self._timeline.section(now_ms)),
            ("engines", True, lambda: self._fleet.section(now_ms)),
            ("account", True, lambda: self._account(now_ms)),
            ("training", self._timeline.stepped, self._timeline.training),
            ("alarms", self._alarms.dirty, self._alarms.section),
            ("processes", True, lambda: self._writers.section(now_ms)),
        ]
        return {name: make() for name, dirty, make in parts if dirty}

    def traffic(self, now_ms: int) -> Traffic:
        """What flows; the reader and the app add what they know."""
        return Traffic(
            topics=[flow.row(now_ms) for flow in self.flows.values()],
            newest_ms=self._newest_ms,
            now_ms=now_ms,
            drops=[Drop(reason=reason, count=n) for reason, n in sorted(self.drops.items())],
        )

    def graders(self) -> list[str]:
        """Graders that gave feedback."""
        return list(self._graders)

    def lags(self, ends: Mapping[tuple[str, int], int]) -> list[Lag]:
        """Consumers whose place follows from what they wrote; ``ends``: high watermarks by topic
        (its full name) and partition."""

        def left(topic: Topic, decided: Mapping[int, int]) -> int:
            name = self._prefix + topic.name
            return sum(max(0, e - decided.get(p, 0)) for (n, p), e in ends.items() if n == name)

        found = []
        if decided := self._decisions.decided():
            row = Lag(
                consumer="trainer",
                topic=topics.TRAJECTORIES.name,
                records=left(topics.TRAJECTORIES, decided),
                source="ranges of the newest version's manifest, records held back included",
            )
            found.append(row)
        if self._answered is not None:
            found.append(
                Lag(
                    consumer="releases",
                    topic=topics.CONTROL.name,
                    records=left(topics.CONTROL, {0: self._answered + 1}),
                    source="orders after the newest that a release answers; those to the trainer "
                    "are answered by none",
                )
            )
        for engine, behind in self._timeline.behind.items():
            found.append(
                Lag(
                    consumer=engine,
                    topic=topics.MODEL_UPDATES.name,
                    records=behind,
                    source="versions after the one that its newest ack names",
                )
            )
        return found

    def _account(self, now_ms: int) -> Account:
        lines = [
            self._answers.line(),
            self._feedback.line(late(self._feedback, self._deadline)),
            self._decisions.line(self._decisions.missing(now_ms, _GRACE_MS)),
        ]
        tallies = (self._feedback, self._decisions)
        return Account(
            since_ms=self._since_ms,
            balanced=not any(line.unaccounted or line.missing for line in lines),
            lines=lines,
            repeated=sum(t.repeated for t in tallies),
            before=sum(t.before for t in tallies),
            forgotten=sum(t.forgotten for t in tallies),
        )
