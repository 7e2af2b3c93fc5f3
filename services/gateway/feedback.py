"""Feedback over HTTP: TensorZero's shape to Feedback records, checked as far as it can be. Pure.

``{"metric_name", "value", "inference_id" | "episode_id", "feedback_id"?, "tags"?, …}`` or an array
of it; the table is :mod:`tailrace.feedback_json`. On top of it: ids get or must carry the caller's
tenant, an interaction from the future is impossible, a metric that the settings know must have its
kind, and only a grader's key speaks as a grader. Called by :mod:`services.gateway.inbox`.
"""

from __future__ import annotations

from collections.abc import Mapping
import re
from typing import Any

import msgspec

from services.gateway.caller import Caller
from services.gateway.errors import ApiError, invalid
from services.gateway.tokens import Grant
from tailrace import feedback_json, ids
from tailrace.errors import InvalidRecord
from tailrace.events import Feedback
from tailrace.ids import ForeignTenant

MOST = 1000
_SKEW_MS = 10 * 60 * 1000
_FIRST_MS = 1_577_836_800_000
"""2020: no interaction is older."""
_RESERVED = re.compile(r"retract-.*|.*\.[0-9]{1,3}\.[0-9a-f]{12}")
"""Ids that retractions and graders make: who gave one first would have theirs refused."""
_SOURCES = ("user", "implicit", "grader")


def read(
    body: bytes,
    caller: Caller,
    *,
    user: str | None,
    kinds: Mapping[str, str],
    now_ms: int,
) -> tuple[list[Feedback], bool]:
    """The records of a request body, and whether it was an array. All of them or none.

    Raises ApiError: 400 for what is malformed, 403 for another tenant's id; in an array ``param``
    says which.
    """
    document = _json(body)
    if not isinstance(document, list):
        return [_one(document, caller, user, kinds, now_ms)], False
    if not 1 <= len(document) <= MOST:
        raise invalid(f"an array of feedback holds 1 to {MOST}")
    records = []
    for number, entry in enumerate(document):
        try:
            records.append(_one(entry, caller, user, kinds, now_ms))
        except ApiError as error:
            raise ApiError(
                error.status, error.message, code=error.code, param=f"[{number}]"
            ) from None
    return records, True


def retraction(feedback_id: str, caller: Caller, *, user: str | None, now_ms: int) -> Feedback:
    """The record that takes a feedback back; the same one for each attempt.

    Raises ForeignTenant, InvalidRecord for a malformed id, ApiError (403) for what a token does not
    allow.
    """
    feedback_id = claim(feedback_id, caller.tenant)
    subject = ids.subject_of(feedback_id)
    interaction = ids.is_interaction(subject)
    record = Feedback(
        feedback_id=ids.retraction_of(feedback_id),
        interaction_id=subject if interaction else None,
        session_id=None if interaction else subject,
        event_time_ms=now_ms,
        tenant=caller.tenant,
        action="retract",
        replaces=feedback_id,
        principal=caller.principal,
        user=user,
    )
    if caller.grant is not None:
        record = msgspec.structs.replace(record, user=_granted(record, caller.grant, user))
    return record


def claim(any_id: str, tenant: str) -> str:
    """The full id of what a caller of ``tenant`` named.

    Raises ForeignTenant, InvalidRecord when it is malformed.
    """
    if ":" not in any_id:
        any_id = f"{tenant}:{any_id}"
    if ids.tenant_of(any_id) != tenant:
        raise ForeignTenant(f"{any_id!r} is not of tenant {tenant!r}")
    return any_id


def check_turn(interaction: str, now_ms: int) -> None:
    """Raises InvalidRecord for an interaction that cannot have happened."""
    if not _FIRST_MS <= ids.turn_time_ms(interaction) <= now_ms + _SKEW_MS:
        raise InvalidRecord("impossible", f"{interaction!r} cannot have happened")


def _json(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiError(400, f"the body is not JSON: {error}", code="invalid_json") from None
    except RecursionError:
        raise ApiError(400, "the body is nested too deeply", code="invalid_json") from None


def _one(
    document: Any, caller: Caller, user: str | None, kinds: Mapping[str, str], now_ms: int
) -> Feedback:
    try:
        record = feedback_json.from_document(_claimed(document, caller.tenant), now_ms=now_ms)
        _check(record, kinds, now_ms)
    except InvalidRecord as error:
        status = 403 if isinstance(error, ForeignTenant) else 400
        raise ApiError(status, str(error), code=error.reason) from None
    user = record.user or user
    if caller.grant is not None:
        user = _granted(record, caller.grant, user)
    if record.source == "grader" and not caller.grader:
        raise ApiError(403, "the key is no grader's", code="not_a_grader")
    return msgspec.structs.replace(
        record, tenant=caller.tenant, principal=caller.principal, user=user
    )


def _claimed(document: Any, tenant: str) -> Any:
    """The document with full ids, and a feedback id of ours where it has none."""
    if not isinstance(document, dict):
        return document
    document = dict(document)
    for name in ("inference_id", "episode_id"):
        if isinstance(document.get(name), str):
            document[name] = claim(document[name], tenant)
    loser = document.get("preferred_over")
    if isinstance(loser, str) and "~" in loser:
        turn, slash, choice = loser.partition("/")
        document["preferred_over"] = f"{claim(turn, tenant)}{slash}{choice}"
    for name in ("feedback_id", "replaces"):
        if isinstance(document.get(name), str) and "!" in document[name]:
            document[name] = claim(document[name], tenant)
    subject = document.get("inference_id") or document.get("episode_id")
    if document.get("feedback_id") is None and isinstance(subject, str):
        document["feedback_id"] = ids.new_feedback(subject)
    return document


def _granted(record: Feedback, grant: Grant, user: str | None) -> str | None:
    """The user of a record that came by a token. Raises ApiError (403) for what the token does not
    allow."""
    subjects = {record.interaction_id}
    if record.replaces is not None:
        subjects.add(record.replaces.partition("!")[0])
    if record.preferred_over is not None:
        subjects.add(ids.other_answer(grant.interaction, record.preferred_over)[0])
    if subjects != {grant.interaction}:
        raise ApiError(403, "the token is for another interaction", code="token_subject")
    if record.source == "grader":
        raise ApiError(403, "a grader needs a key", code="token_source")
    own = record.action == "retract" and record.feedback_id == ids.retraction_of(
        record.replaces or ""
    )
    if _RESERVED.fullmatch(record.feedback_id.partition("!")[2]) and not own:
        raise ApiError(403, "a page cannot give that id", code="token_id")
    if record.action == "set" and grant.metrics is not None and record.metric not in grant.metrics:
        raise ApiError(403, f"the token is not for {record.metric}", code="token_metric")
    if user is not None and user != grant.user:
        raise ApiError(403, "the token is for another user", code="token_user")
    return grant.user


def _check(record: Feedback, kinds: Mapping[str, str], now_ms: int) -> None:
    if record.source not in _SOURCES:
        raise InvalidRecord("source", f"source is one of {', '.join(_SOURCES)}")
    if (record.source == "grader") != bool(record.grader):
        raise InvalidRecord("source", "a grader, and nobody else, gives its name in grader")
    if not 0 <= record.choice < ids.MAX_CHOICES:
        raise InvalidRecord("choice", f"choice is between 0 and {ids.MAX_CHOICES - 1}")
    if record.interaction_id is not None:
        check_turn(record.interaction_id, now_ms)
    wanted = kinds.get(record.metric or "")
    if record.action == "set" and wanted is not None and record.kind != wanted:
        raise InvalidRecord("value", f"{record.metric} is {wanted}, not {record.kind}")
