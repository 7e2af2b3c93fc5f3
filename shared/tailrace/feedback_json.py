"""Feedback as JSON, over HTTP and on the topic: one table for both.

=================  ====================================================================
JSON               Feedback
=================  ====================================================================
feedback_id        feedback_id: a full id, or a token that is joined to the subject
inference_id       interaction_id
episode_id         session_id
metric_name        metric; ``comment`` and ``demonstration`` also name the kind
value              true/false: boolean; a number: number; text: the comment, the
                   demonstration, or else a category; of a preference absent or true
kind               kind, where the value does not say it: a text that is a comment or a
                   demonstration. One that the value contradicts is refused
preferred_over     preferred_over, the answer that lost: a choice, an interaction, or
                   ``<interaction>/<choice>`` of the same session; the kind is preference
choice, tags, replaces, action, source, grader, user, event_time_ms: as they are
=================  ====================================================================

A retraction (``"action": "retract"``) names its target in ``replaces`` and needs no value.
On the topic, what the body leaves out may be in the record's CloudEvents attributes: a feedback_id
in ``id``, event_time_ms in ``time``, the interaction or session in ``subject``.

:func:`same` is the one notion of two records that say the same, here, in the gateway and in the
rewards process.
"""

from __future__ import annotations

from collections.abc import Mapping
import hashlib
import math
from typing import Annotated, Any

import msgspec

from tailrace import cloudevents, ids
from tailrace.errors import InvalidRecord
from tailrace.events import Feedback, FeedbackContent

KINDS = ("boolean", "number", "category", "comment", "demonstration", "preference")
MEDIA_TYPES = (b"application/json", cloudevents.STRUCTURED)
_TEXTS = ("comment", "demonstration")
_SORTED = msgspec.msgpack.Encoder(order="sorted")
_Natural = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    metric_name: str | None = None
    value: bool | int | float | str | None = None
    inference_id: str | None = None
    episode_id: str | None = None
    feedback_id: str | None = None
    kind: str | None = None
    preferred_over: str | None = None
    choice: _Natural = 0
    tags: dict[str, str] = {}
    replaces: str | None = None
    action: str = "set"
    source: str = "user"
    grader: str | None = None
    user: str | None = None
    event_time_ms: _Natural | None = None


def decode(value: bytes, *, now_ms: int, headers: Mapping[str, bytes] | None = None) -> Feedback:
    """One feedback record from JSON bytes. ``headers``: the record's; CloudEvents are honoured.

    Raises InvalidRecord saying what is wrong.
    """
    headers, body = cloudevents.opened(value, headers or {})
    if isinstance(body, dict):
        document: Any = body
    else:
        try:
            document = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidRecord("json", str(error)) from None
    if isinstance(document, dict):
        document = _completed(document, headers)
    return from_document(document, now_ms=now_ms)


def document(
    subject: str,
    value: bool | float | str | None = None,
    *,
    metric: str = "thumbs",
    tags: Mapping[str, str] | None = None,
    **said: Any,
) -> dict[str, Any]:
    """The JSON object that says something about an interaction or a session.

    ``said`` are other keys of the table; those that are None are left out. Not checked.
    """
    key = "inference_id" if ids.is_interaction(subject) else "episode_id"
    given = {"value": value, "tags": dict(tags) if tags else None, **said}
    return {key: subject, "metric_name": metric} | {
        name: what for name, what in given.items() if what is not None
    }


def same(record: Feedback) -> bytes:
    """16 bytes of what was said: equal for two records that differ in their event time or in the
    key that authenticated them alone, as a retry may. A retraction says what it takes back and no
    more, whoever asks for it."""
    if record.action == "retract":
        said = Feedback(
            feedback_id=record.feedback_id,
            interaction_id=record.interaction_id,
            session_id=record.session_id,
            event_time_ms=0,
            tenant=record.tenant,
            action=record.action,
            replaces=record.replaces,
        )
    else:
        said = msgspec.structs.replace(record, event_time_ms=0, principal=None)
    return hashlib.blake2b(_SORTED.encode(said), digest_size=16).digest()


def from_document(document: Any, *, now_ms: int) -> Feedback:
    """One feedback record from a decoded JSON object.

    Raises InvalidRecord: unknown or wrongly typed key, both or neither of inference_id and
    episode_id, no feedback_id, a value that is missing, not finite or not of its kind, a malformed
    id.
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
    if "!" in subject or bool(given.inference_id) != ids.is_interaction(subject):
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


def _completed(document: dict[str, Any], headers: Mapping[str, bytes]) -> dict[str, Any]:
    """The document with what its event says and it does not."""
    document = dict(document)
    subject = document.get("inference_id") or document.get("episode_id")
    if subject is None and (subject := cloudevents.attribute(headers, "subject")) is not None:
        document["inference_id" if ids.is_interaction(subject) else "episode_id"] = subject
    event_id = cloudevents.attribute(headers, "id")
    if document.get("feedback_id") is None and event_id and isinstance(subject, str):
        source = cloudevents.attribute(headers, "source") or ""
        document["feedback_id"] = ids.feedback_of_event(subject, source, event_id)
    if document.get("event_time_ms") is None:
        document["event_time_ms"] = cloudevents.time_ms(headers)
    return document


def _value(given: _Document) -> dict[str, Any]:
    """What was said, as the fields of Feedback that hold it."""
    value = given.value
    kind = given.kind or _kind(given)
    if kind not in KINDS:
        raise InvalidRecord("kind", f"{kind!r} is none of {', '.join(KINDS)}")
    if (kind == "preference") != (given.preferred_over is not None):
        raise InvalidRecord(
            "preferred_over", "a preference, and nothing else, names what it is over"
        )
    if kind == "preference":
        if not (value is None or value is True):
            raise InvalidRecord("value", "a preference has no value of its own")
        return {"kind": kind, "preferred_over": _loser(given)}
    match kind, value:
        case _, None:
            raise InvalidRecord("value", "value is missing")
        case "boolean", bool():
            return {"kind": kind, "boolean": value}
        case "number", (int() | float()) if not isinstance(value, bool):
            try:
                number = float(value)
            except OverflowError:
                number = math.inf
            if not math.isfinite(number):
                raise InvalidRecord("value", "a number must be finite")
            return {"kind": kind, "number": number}
        case "category", str():
            return {"kind": kind, "category": value}
        case (("comment" | "demonstration"), str()):
            return {"kind": kind, "content": FeedbackContent(text=value)}
    wanted = "text" if kind in (*_TEXTS, "category") else f"a {kind}"
    raise InvalidRecord("value", f"the value of a {kind} is {wanted}")


def _kind(given: _Document) -> str:
    if given.preferred_over is not None:
        return "preference"
    if given.metric_name in _TEXTS:
        return given.metric_name
    match given.value:
        case bool():
            return "boolean"
        case int() | float():
            return "number"
    return "category"


def _loser(given: _Document) -> str:
    if given.inference_id is None:
        raise InvalidRecord("preferred_over", "a preference is about an interaction")
    assert given.preferred_over is not None
    loser = ids.other_answer(given.inference_id, given.preferred_over)
    if loser == (given.inference_id, given.choice):
        raise InvalidRecord("preferred_over", "an answer cannot be preferred over itself")
    return given.preferred_over
