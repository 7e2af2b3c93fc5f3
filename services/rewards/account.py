"""Feedback by its ids: duplicates, conflicts, and what replaces or retracts what.

Pure. Records of a partition come in offset order, some of them twice (after an assignment); of two
records with one id the one with the lower offset is the feedback, whichever way they were met.
"""

from __future__ import annotations

from collections.abc import Iterator

from services.rewards import naming
from services.rewards.facts import FeedbackFact
from services.rewards.spec import Spec
from tailrace import events, feedback_json, ids
from tailrace.log.base import LogRecord
from tailrace.traces import of_record


class Heard:
    """A feedback record in memory, with what later records did to it and what it came to."""

    __slots__ = ("fact", "newest_ms", "replaced", "settled_by", "withdrawn")

    def __init__(self, fact: FeedbackFact) -> None:
        self.fact = fact
        turns = [naming.turn_time_ms(turn) for turn, _ in fact.answers]
        self.newest_ms = max(fact.newest_ms, *(turns or [fact.time_ms]))
        """When the newest turn began that it, or what it replaces or retracts, is about."""
        self.replaced: list[Heard] = []
        self.withdrawn: list[FeedbackFact] = []
        self.settled_by: int | None = None
        """Offset of the tick that decided its outcome."""

    def later(self) -> Iterator[FeedbackFact]:
        """What was done to it."""
        yield from self.withdrawn
        for other in self.replaced:
            yield other.fact


def grader_of(event: events.Feedback) -> str | None:
    """Which grader says it: its name, and the way it came. None: no grader does.

    The gateway names a principal wherever it asks for keys; so what a grader writes to the log
    itself is out of its callers' reach, whatever name they give.
    """
    if event.source != "grader":
        return None
    return f"{'log' if event.principal is None else 'gateway'}:{event.grader or ''}"


def kind_of(event: events.Feedback) -> str | None:
    """comment, demonstration or preference; None where the value alone says what it is."""
    if event.kind is not None:
        return event.kind if event.kind in ("comment", "demonstration", "preference") else None
    if not (event.boolean is None and event.number is None and event.category is None):
        return None
    return "comment" if event.preferred_over is None else "preference"


class Account:
    """All feedback that was let in on one partition, by id and by offset."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._by_id: dict[str, list[Heard]] = {}
        """In offset order; more than one where the horizon passed before an id came again."""
        self.by_offset: dict[int, Heard] = {}

    def find(self, feedback_id: str, record: LogRecord) -> Heard | None:
        """The feedback of an id before a record, if the correction horizon and the number of
        records still remember it."""
        for heard in reversed(self._by_id.get(feedback_id, ())):
            if heard.fact.offset < record.offset:
                newest_ms = max(heard.fact.time_ms, heard.newest_ms)
                recent = record.time_ms - newest_ms <= self._spec.horizon_ms
                near = record.offset - heard.fact.offset <= self._spec.max_records
                return heard if recent and near else None
        return None

    def repeated(self, record: LogRecord, event: events.Feedback) -> str | None:
        """``duplicate`` or ``conflict`` when the id was given to an earlier record.

        A retraction that found no target gave its id to nothing: who may take back what it named
        has the same id for it.
        """
        known = self.find(event.feedback_id, record)
        if known is None or (known.fact.retract and known.fact.target is None):
            return None
        return "duplicate" if known.fact.body == feedback_json.same(event) else "conflict"

    def fact_of(self, record: LogRecord, event: events.Feedback) -> FeedbackFact:
        """What is kept of a feedback record that is not a repetition."""
        metric = self._spec.metrics.get(event.metric or "")
        retract = event.action == "retract"
        kind = None if retract else kind_of(event)
        target = self._target(record, event)
        loser = None
        if kind == "preference" and event.interaction_id and event.preferred_over:
            loser = ids.other_answer(event.interaction_id, event.preferred_over)
        return FeedbackFact(
            offset=record.offset,
            time_ms=record.time_ms,
            feedback_id=event.feedback_id,
            interaction_id=event.interaction_id,
            choice=event.choice,
            retract=retract,
            names=event.replaces,
            target=None if target is None else target.fact.offset,
            metric=event.metric,
            boolean=event.boolean,
            number=event.number,
            category=event.category,
            kind=kind,
            preferred_over=loser,
            final=metric is not None and metric.final and not retract,
            source=event.source,
            traceparent=of_record(record.headers),
            grader=grader_of(event),
            newest_ms=0 if target is None else target.newest_ms,
            body=feedback_json.same(event),
        )

    def take(self, fact: FeedbackFact) -> Heard:
        """Remember a feedback and mark what it replaces or retracts."""
        heard = Heard(fact)
        self._by_id.setdefault(fact.feedback_id, []).append(heard)
        self.by_offset[fact.offset] = heard
        target = None if fact.target is None else self.by_offset.get(fact.target)
        if target is None:
            return heard
        # Of what was kept before it said so itself.
        heard.newest_ms = max(heard.newest_ms, target.newest_ms)
        if fact.retract:
            target.withdrawn.append(fact)
        else:
            target.replaced.append(heard)
        return heard

    def forget(self, offset: int) -> None:
        """Drop what the horizon has passed."""
        heard = self.by_offset.pop(offset, None)
        if heard is None:
            return
        same = self._by_id[heard.fact.feedback_id]
        same.remove(heard)
        if not same:
            del self._by_id[heard.fact.feedback_id]

    def _target(self, record: LogRecord, event: events.Feedback) -> Heard | None:
        """What ``replaces`` names: an earlier, standing set about the same answer.

        Nobody but that grader takes back or replaces what a grader said, and what replaces is of
        the same metric: a page that may say one thing cannot silence another.
        """
        if event.replaces is None:
            return None
        heard = self.find(event.replaces, record)
        if heard is None:
            return None
        fact = heard.fact
        same = fact.subject == event.feedback_id.partition("!")[0]
        if event.action != "retract":
            same = same and (fact.choice, fact.metric) == (event.choice, event.metric)
        if fact.source == "grader":
            same = same and event.source == "grader"
            same = same and fact.grader in (None, grader_of(event))
        standing = not heard.replaced and not heard.withdrawn
        if fact.retract or not same or not standing:
            return None
        return heard
