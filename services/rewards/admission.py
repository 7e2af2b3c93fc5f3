"""Which records may come in at all. Pure; a function of one record and where it lies.

The join calls :func:`check_feedback` and :func:`check_turn` for every decoded record. What is
refused registers no id and touches no entry.
"""

from __future__ import annotations

from contextlib import suppress
import math

from services.rewards import naming
from tailrace import ids
from tailrace.errors import InvalidRecord
from tailrace.events import Feedback, Output, Prompt
from tailrace.log.base import LogRecord

FUTURE_MS = 24 * 3600 * 1000
"""A turn token that is further ahead of the log than this was not made by a gateway's clock."""
_KINDS = (None, "boolean", "number", "category", "comment", "demonstration", "preference")


class Refused(InvalidRecord):
    """``outcome`` is the receipt's: invalid, foreign or late."""

    def __init__(self, outcome: str, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.outcome = outcome


def check_turn(record: LogRecord, event: Prompt | Output, partitions: int, horizon_ms: int) -> None:
    """Raises Refused for a prompt or output that breaks its contract or is past the horizon."""
    session = _session_of(event.interaction_id)
    if not ids.is_interaction(event.interaction_id) or "!" in event.interaction_id:
        raise Refused("invalid", "id", f"{event.interaction_id!r} is no interaction id")
    if isinstance(event, Prompt):
        if event.tenant is not None and event.tenant != naming.tenant_of(session):
            raise Refused("foreign", "foreign", f"{event.interaction_id!r} is not {event.tenant}'s")
        if event.session_id != session:
            raise Refused("invalid", "id", f"{event.session_id!r} is not {session!r}")
    elif not 0 <= event.choice < ids.MAX_CHOICES:
        raise Refused("invalid", "choice", f"choice {event.choice}")
    _check_place(record, session, partitions)
    _check_age(record, event.interaction_id, horizon_ms)


def check_feedback(record: LogRecord, event: Feedback, partitions: int, horizon_ms: int) -> None:
    """Raises Refused with the outcome that the record's receipt gets."""
    session = _session_of(event.feedback_id)
    if "!" not in event.feedback_id:
        raise Refused("invalid", "id", f"{event.feedback_id!r} is no feedback id")
    named = [event.feedback_id, event.interaction_id, event.session_id, event.replaces]
    tenants = {_tenant_of(name) for name in named if name is not None}
    if ":" in (other := (event.preferred_over or "").partition("/")[0]):
        with suppress(Refused):  # _check_value says what is wrong with it
            tenants.add(_tenant_of(other))
    if event.tenant is not None:
        tenants.add(event.tenant)
    if len(tenants) > 1:
        raise Refused("foreign", "foreign", f"ids of {' and '.join(sorted(tenants))}")
    subject = event.interaction_id or event.session_id
    try:
        if subject is None or ids.subject_of(event.feedback_id) != subject:
            raise Refused("invalid", "subject", f"{event.feedback_id!r} is not about {subject!r}")
    except InvalidRecord as error:
        raise Refused("invalid", error.reason, str(error)) from None
    if bool(event.interaction_id) != ids.is_interaction(subject):
        raise Refused("invalid", "subject", f"{subject!r} is not what its field says it is")
    if event.session_id is not None and event.session_id != session:
        raise Refused("invalid", "subject", f"{subject!r} is not of {event.session_id!r}")
    _check_place(record, session, partitions)
    if not 0 <= event.choice < ids.MAX_CHOICES:
        raise Refused("invalid", "choice", f"choice {event.choice}")
    _check_value(event)
    if event.interaction_id is not None:
        _check_age(record, event.interaction_id, horizon_ms)
    loser = _loser(event)
    if loser is not None:
        _check_age(record, loser, horizon_ms)


def _check_value(event: Feedback) -> None:
    if event.number is not None and not math.isfinite(event.number):
        raise Refused("invalid", "not_finite", f"number {event.number}")
    if event.action == "retract":
        if event.replaces is None:
            raise Refused("invalid", "action", "a retraction names its target in replaces")
        return
    if event.action != "set":
        raise Refused("invalid", "action", f"{event.action!r} is neither set nor retract")
    if event.kind not in _KINDS:
        raise Refused("invalid", "kind", f"{event.kind!r}")
    given = {
        "boolean": event.boolean,
        "number": event.number,
        "category": event.category,
        "comment": event.content and event.content.text,
        "demonstration": event.content and event.content.text,
        "preference": event.preferred_over,
    }
    if event.kind is None and all(value is None for value in given.values()):
        raise Refused("invalid", "value", "nothing is said")
    if event.kind is not None and given[event.kind] is None:
        raise Refused("invalid", "value", f"a {event.kind} without its value")


def _loser(event: Feedback) -> str | None:
    """The interaction that another was preferred over."""
    if event.preferred_over is None or event.action == "retract":
        return None
    if event.interaction_id is None:
        raise Refused("invalid", "preferred_over", "a preference is about an interaction")
    try:
        loser = ids.other_answer(event.interaction_id, event.preferred_over)
    except InvalidRecord as error:
        raise Refused("invalid", error.reason, str(error)) from None
    if loser == (event.interaction_id, event.choice):
        raise Refused("invalid", "preferred_over", "an answer is preferred over itself")
    return loser[0]


def _check_place(record: LogRecord, session: str, partitions: int) -> None:
    wanted = naming.place_of(session, partitions)
    if record.partition != wanted:
        raise Refused("invalid", "misplaced", f"{session!r} belongs to partition {wanted}")


def _check_age(record: LogRecord, interaction: str, horizon_ms: int) -> None:
    turn_ms = naming.turn_time_ms(interaction)
    if turn_ms > record.time_ms + FUTURE_MS:
        raise Refused("invalid", "impossible", f"{interaction!r} is of a time to come")
    if record.time_ms - turn_ms > horizon_ms:
        raise Refused("late", "horizon", f"{interaction!r} began before the horizon")


def _session_of(any_id: str) -> str:
    try:
        return naming.session_of(any_id)
    except InvalidRecord as error:
        raise Refused("invalid", error.reason, str(error)) from None


def _tenant_of(any_id: str) -> str:
    return naming.tenant_of(_session_of(any_id))
