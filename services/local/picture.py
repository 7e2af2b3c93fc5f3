"""What the demo knows while it runs: users' lines, records of the log, the runner's events. Pure.

Fed by :mod:`services.local.demo`, drawn by :mod:`services.local.view`, summed up by
:mod:`services.local.summary`. Everything counts from the start of this run; the audit at its end
covers the whole log.
"""

from __future__ import annotations

from collections import Counter, deque

import msgspec

from services.local.latency import FeedbackToServed
from services.local.lines import Line
from tailrace.events import (
    Alarm,
    Coordinates,
    Feedback,
    ModelAck,
    ModelUpdate,
    Output,
    Prompt,
    Receipt,
    Step,
    Struct,
    Trajectory,
)
from tailrace.log.base import LogRecord

Place = tuple[int, int]
WINDOW = 50
"""Answers in the moving share."""


class Process(msgspec.Struct, kw_only=True):
    """A child of the runner."""

    name: str
    state: str = ""
    pid: int | None = None
    restarts: int = 0


class Version(msgspec.Struct, kw_only=True):
    """A published version, as far as this run saw it."""

    version: int
    time_ms: int
    kind: str
    bytes: int | None
    zero_step: bool


class Picture:
    """The state of a run. Times are wall clock, milliseconds since 1970."""

    def __init__(self) -> None:
        self.phase = "preparing"
        self.happened = ""
        """One line: what just happened."""
        self.news: deque[str] = deque(maxlen=100)
        """The same, what nobody has taken yet, oldest first."""
        self.processes: dict[str, Process] = {}
        self.answers: list[Line] = []
        """All answers, in the order in which they were completed."""
        self.votes: dict[str, Line] = {}
        self.failed: list[Line] = []
        self.users_ended = False
        self.versions: list[Version] = []
        self.serving: int | None = None
        self.pauses_ms: list[float] = []
        self.refused: list[ModelAck] = []
        self.steps_s: list[float] = []
        self.lags: list[int] = []
        """Of each trained trajectory: versions published between its answer and its training."""
        self.alarms: list[Alarm] = []
        self.dead_letters = 0
        self.latency = FeedbackToServed()
        self.feedback: dict[Place, str] = {}
        """Feedback id at each place."""
        self.feedback_outcomes: dict[Place, str] = {}
        self.trajectories: dict[Place, str] = {}
        self.trajectory_outcomes: dict[Place, str] = {}
        self._behaviour: dict[str, int] = {}
        self._outputs: set[tuple[str, int]] = set()
        self._closed: set[tuple[str, int]] = set()
        self.recent: deque[Line] = deque(maxlen=3)

    def say(self, happened: str) -> None:
        """Something worth a line happened."""
        self.happened = happened
        self.news.append(happened)

    def user(self, line: Line) -> None:
        """One line of the users' process."""
        if line.kind == "answer":
            if not self.answers:
                self.say("the first answer came")
            self.answers.append(line)
            self.recent.append(line)
        elif line.kind == "vote":
            self.votes[line.feedback_id] = line
        elif line.kind == "failed":
            self.failed.append(line)
            if len(self.failed) in (1, 10) or len(self.failed) % 100 == 0:
                self.say(f"{len(self.failed)} requests failed; {line.what}: {line.error}")
        elif line.kind == "end":
            self.users_ended = True

    def process(self, name: str, state: str, pid: int | None, restarts: int) -> None:
        """A child changed its state."""
        self.processes[name] = Process(name=name, state=state, pid=pid, restarts=restarts)

    def ready(self, name: str) -> None:
        """A child said that it is ready."""
        if name in self.processes:
            self.processes[name].state = "ready"

    def record(self, record: LogRecord, event: Struct | None) -> None:
        """One record of the log; ``event`` None where it holds raw bytes or cannot be read."""
        place = (record.partition, record.offset)
        match event:
            case Prompt():
                self.latency.prompt(event)
            case Output():
                self._outputs.add((event.interaction_id, event.choice))
                self.latency.output(event)
            case Feedback():
                source = Coordinates(partition=record.partition, offset=record.offset)
                self.feedback[place] = event.feedback_id
                self.latency.feedback(source, record.time_ms)
            case Trajectory():
                self._trajectory(place, event)
            case Receipt():
                self._receipt(event)
            case Step():
                if "step_s" in event.figures:
                    self.steps_s.append(event.figures["step_s"])
                self.say(f"step {event.step}: {len(event.inputs)} answers trained")
            case ModelUpdate():
                self._update(record, event)
            case ModelAck():
                self._ack(event)
            case Alarm():
                self.alarms.append(event)
                self.say(f"drift: {event.stream} {event.state} ({event.detector})")
            case None if record.topic.endswith("dead-letters"):
                self.dead_letters += 1
                reason = record.headers.get("tailrace-reason", b"").decode(errors="replace")
                self.say(f"a record went to dead-letters: {reason}")
            case None if record.topic.endswith("feedback"):
                self.feedback[place] = ""

    def _trajectory(self, place: Place, event: Trajectory) -> None:
        self.trajectories[place] = event.trajectory_id
        self._closed.add((event.interaction_id, event.choice))
        known = [span.version for span in event.weight_versions if span.version is not None]
        if known:
            self._behaviour[event.trajectory_id] = min(known)

    def _receipt(self, event: Receipt) -> None:
        self.latency.receipt(event)
        place = (event.source.partition, event.source.offset)
        if event.stage == "rewards":
            self.feedback_outcomes[place] = event.outcome
            return
        self.trajectory_outcomes[place] = event.outcome
        made = self._behaviour.pop(event.subject_id, None)
        if event.outcome == "trained" and made is not None and event.version is not None:
            self.lags.append(event.version - 1 - made)

    def _update(self, record: LogRecord, event: ModelUpdate) -> None:
        zero_step = event.chunks is None and event.uri is None
        self.versions.append(
            Version(
                version=event.version,
                time_ms=record.time_ms,
                kind=event.kind or "",
                bytes=event.bytes,
                zero_step=zero_step,
            )
        )
        if zero_step:
            self.say(f"version {event.version} published: an account without training")
        else:
            size_mb = (event.bytes or 0) / 1e6
            self.say(f"version {event.version} published: {event.kind}, {size_mb:.2f} MB")

    def _ack(self, event: ModelAck) -> None:
        if event.state == "refused":
            self.refused.append(event)
            self.say(f"{event.engine} refused version {event.version}: {event.reason}")
            return
        self.serving = event.version
        if event.state == "applied":
            if event.pause_ms:
                self.pauses_ms.append(event.pause_ms)
            pause = f" after a pause of {event.pause_ms:.0f} ms" if event.pause_ms else ""
            self.say(f"{event.engine} serves version {event.version}{pause}")

    def share(self, last: int = WINDOW) -> float | None:
        """Share of the last answers that the users truly liked."""
        window = self.answers[-last:]
        return sum(line.liked for line in window) / len(window) if window else None

    def outcomes(self) -> Counter[str]:
        """Feedback records of this run by outcome."""
        return Counter(o for p, o in self.feedback_outcomes.items() if p in self.feedback)

    def feedback_waiting(self) -> int:
        """Feedback records without a receipt, and votes that are not on the log yet."""
        seen = set(self.feedback.values())
        return len(self.feedback.keys() - self.feedback_outcomes.keys()) + sum(
            1 for vote in self.votes if vote not in seen
        )

    def outputs_waiting(self) -> int:
        """Answers that have not become a trajectory yet."""
        return len(self._outputs - self._closed)

    def trajectories_waiting(self) -> int:
        """Trajectories that the trainer has not decided yet."""
        return len(self.trajectories.keys() - self.trajectory_outcomes.keys())
