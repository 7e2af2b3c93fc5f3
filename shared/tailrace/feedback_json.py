"""Feedback as JSON, over HTTP and on the topic: one table for both.

=================  ====================================================================
JSON               Feedback
=================  ====================================================================
feedback_id        feedback_id: a full id, or a token that is joined to the subject
inference_id       interaction_id
episode_id         session_id
metric_name        metric; ``comment`` and ``demonstration`` also name the kind
value              true/false: boolean; a number: number; text: the comment, the
                   demonstration, or else a category
choice, tags, replaces, action, source, grader, user, event_time_ms: as they are
=================  ====================================================================

A retraction (``"action": "retract"``) names its target in ``replaces`` and needs no value.
"""

from __future__ import annotations

from collections.abc import Mapping
import math
from typing import Annotated, Any

import msgspec

from tailrace import ids
from tailrace.errors import InvalidRecord
from tailrace.events import Feedback, FeedbackContent

_TEXTS = ("comment", "demonstration")
_Natural = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    metric_name: str | None = None
    value: bool | int | float | str | None = None
    inference_id: str | None = None
    episode_id: str | None = None
    feedback_id: str | None = None
    choice: _Natural = 0
    tags: dict[str, str] = {}
    replaces: str | None = None
    action: str = "set"
    source: str = "user"
    grader: str | None = None
    user: str | None = None
    event_time_ms: _Natural | None = None


def decode(value: bytes, *, now_ms: int) -> Feedback:
    """One feedback record from JSON bytes. Raises InvalidRecord saying what is wrong."""
    try:
        document = msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRecord("json", str(error)) from None
    return from_document(document, now_ms=now_ms)


def from_document(document: Any, *, now_ms: int) -> Feedback:
    """One feedback record from a decoded JSON object.

    Raises InvalidRecord: unknown or wrongly typed key, both or neither of inference_id and
    episode_id, no feedback_id, a value that is missing or not finite, a malformed id.
    """
    if not isinstance(document, Mapping):
        raise InvalidRecord("json", "feedback is a JSON object")
    try:
        given = msgspec.convert(document, _Document)
    except msgspec.ValidationError as error:
        raise InvalidRecord("json", str(error)) from None
    subject = given.inference_id or given.episode_id
    if subject is None or (given.inference_id and given.episode_id):
        raise InvalidRecord("subject", "name one of inference_id and episode_id")
    ids.session_of(subject)
    if bool(given.inference_id) != ids.is_interaction(subject):
        raise InvalidRecord("subject", f"{subject!r} is not what its key says it is")
    if given.feedback_id is None:
        raise InvalidRecord("id", "feedback_id is missing")
    record = Feedback(
        feedback_id=ids.feedback_of(subject, given.feedback_id),
        interaction_id=given.inference_id,
        session_id=given.episode_id,
        choice=given.choice,
        event_time_ms=now_ms if given.event_time_ms is None else given.event_time_ms,
        tenant=ids.tenant_of(subject),
        metric=given.metric_name,
        action=given.action,
        replaces=ids.feedback_of(subject, given.replaces) if given.replaces else None,
        source=given.source,
        grader=given.grader,
        user=given.user,
        tags=given.tags,
    )
    if given.action == "retract":
        if not given.replaces:
            raise InvalidRecord("action", "a retraction names its target in replaces")
        return record
    if given.action != "set":
        raise InvalidRecord("action", f"{given.action!r} is neither set nor retract")
    if not given.metric_name:
        raise InvalidRecord("metric", "metric_name is missing")
    return msgspec.structs.replace(record, **_value(given))


def _value(given: _Document) -> dict[str, Any]:
    value, metric = given.value, given.metric_name
    if metric in _TEXTS and not isinstance(value, str):
        raise InvalidRecord("value", f"the value of {metric} is text")
    match value:
        case None:
            raise InvalidRecord("value", "value is missing")
        case bool():
            return {"kind": "boolean", "boolean": value}
        case int() | float():
            try:
                number = float(value)
            except OverflowError:
                number = math.inf
            if not math.isfinite(number):
                raise InvalidRecord("value", "a number must be finite")
            return {"kind": "number", "number": number}
        case str() if metric in _TEXTS:
            return {"kind": metric, "content": FeedbackContent(text=value)}
        case _:
            return {"kind": "category", "category": value}
