"""Ids that carry their own partition key.

    session      ``<tenant>:<name>``           name: UUIDv7 or client-chosen
    interaction  ``<session>~<turn>``          turn: short, time-ordered, no counter to ask
    feedback     ``<interaction or session>!<token>``

Whoever holds any of them can find the session, hence the key and the partition, with no look-up.
Derived ids (trajectories) are UUIDv5, so a replay or a retry makes the same id.
"""

from __future__ import annotations

from collections.abc import Sequence
import os
import re
import uuid

from tailrace.errors import InvalidRecord

_TENANT = re.compile(r"[a-z0-9-]{1,32}")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")
_TURN = re.compile(r"[0-9A-HJKMNP-TV-Z]{13}")
_TOKEN = re.compile(r"[A-Za-z0-9._-]{1,128}")
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_TURN_RANDOM_BITS = 20
_CHOICE = re.compile(r"[0-9]{1,3}")
_ROLLOUTS = re.compile(r"[a-z0-9-]{1,32}:rollouts\.[0-9a-f]{12}\.[0-9]+(?=~|!|$)")
MAX_CHOICES = 128
"""Answers of one request: choices are 0 to one less."""
_NAMESPACE = uuid.UUID("6f1d1b52-7f0e-5c55-9e0d-6a7461696c72")
_RETRACTIONS = uuid.UUID("0d6c3c4f-52a1-5d2c-8a3e-7472616365ff")


class ForeignTenant(InvalidRecord):
    """An id of one tenant was used by another (HTTP 403; receipt ``foreign``)."""

    def __init__(self, detail: str) -> None:
        super().__init__("foreign", detail)


def new_session(tenant: str, now_ms: int) -> str:
    """A fresh session id, its name a UUIDv7 made at ``now_ms``."""
    random = int.from_bytes(os.urandom(10), "big")
    value = (now_ms & ((1 << 48) - 1)) << 80 | random
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return f"{tenant}:{uuid.UUID(int=value)}"


def rollouts_session(tenant: str, book: str, number: int) -> str:
    """The session of a group of rollouts, by the book (12 hex digits) that numbers it."""
    return f"{tenant}:rollouts.{book}.{number}"


def is_of_rollouts(any_id: str) -> bool:
    """Whether an id of any kind is of a group of rollouts: no user has said anything there.

    >>> is_of_rollouts(rollouts_session("acme", "0123456789ab", 7) + "~01HF7YAT00000")
    True
    """
    return _ROLLOUTS.match(any_id) is not None


def claim_session(session: str, tenant: str) -> str:
    """The full session id of what a caller of ``tenant`` named.

    A bare name gets the tenant; a full id must carry it.

    Raises ForeignTenant for another tenant's id, InvalidRecord for a malformed one and for the name
    of a group of rollouts: what users say is to be watched as theirs.

    >>> claim_session("chat-1", "acme")
    'acme:chat-1'
    """
    if ":" not in session:
        session = f"{tenant}:{session}"
    if tenant_of(session) != tenant:
        raise ForeignTenant(f"session {session!r} is not of tenant {tenant!r}")
    if session_of(session) != session:
        raise InvalidRecord("id", f"{session!r} names more than a session")
    if is_of_rollouts(session):
        raise InvalidRecord("id", f"{session!r} is a name for rollouts")
    return session


def new_interaction(session: str, now_ms: int, chance: int | None = None) -> str:
    """A fresh interaction of a session: 45 bits of time and 20 of chance in 13 characters.

    ``chance``: a number below 2**20 in its place, where the id must be the same when made again.
    """
    if chance is None:
        chance = int.from_bytes(os.urandom(3), "big") >> 4
    value = now_ms << _TURN_RANDOM_BITS | chance
    turn = "".join(_CROCKFORD[value >> shift & 31] for shift in range(60, -1, -5))
    return f"{session}~{turn}"


def turn_time_ms(interaction: str) -> int:
    """When an interaction began, by its turn token.

    >>> turn_time_ms(new_interaction("default:s", 1_700_000_000_000))
    1700000000000
    """
    value = 0
    for character in interaction.partition("~")[2]:
        value = value << 5 | _CROCKFORD.index(character)
    return value >> _TURN_RANDOM_BITS


def new_feedback(subject: str) -> str:
    """A fresh feedback id for an interaction or a session."""
    return f"{subject}!{uuid.uuid4().hex}"


def feedback_of(subject: str, token: str) -> str:
    """The feedback id of a client's own token (a full feedback id of the same subject is taken as
    is).

    Raises InvalidRecord when the token is malformed or names another subject.
    """
    head, mark, tail = token.rpartition("!")
    if mark and head != subject:
        raise InvalidRecord("id", f"feedback id {token!r} is not of {subject!r}")
    if not _TOKEN.fullmatch(tail):
        raise InvalidRecord("id", f"feedback token {tail!r} must be 1-128 of [A-Za-z0-9._-]")
    return f"{subject}!{tail}"


def feedback_of_event(subject: str, source: str, event_id: str) -> str:
    """The feedback id of a CloudEvent that names none: its own id where that can be a token or is
    a full id of the subject, else one derived from ``source`` and id. Made again it is the same.

    >>> feedback_of_event("acme:chat-1", "/app", "7")
    'acme:chat-1!7'
    """
    head, mark, tail = event_id.rpartition("!")
    if _TOKEN.fullmatch(tail) and head == (subject if mark else ""):
        return f"{subject}!{tail}"
    derived = uuid.uuid5(_NAMESPACE, f"{source}\x1f{event_id}")
    return f"{subject}!{derived.hex}"


def retraction_of(feedback: str) -> str:
    """The id of the feedback that takes ``feedback`` back: one, however often that is said.

    Raises InvalidRecord when it is no feedback id.
    """
    token = uuid.uuid5(_RETRACTIONS, feedback).hex
    return feedback_of(subject_of(feedback), f"retract-{token}")


def subject_of(feedback: str) -> str:
    """The interaction or session that a feedback id names. Raises InvalidRecord when malformed."""
    subject, mark, token = feedback.partition("!")
    if not mark or not _TOKEN.fullmatch(token):
        raise InvalidRecord("id", f"{feedback!r} is no feedback id")
    session_of(subject)
    return subject


def session_of(any_id: str) -> str:
    """The session that an id of any kind belongs to: the key of all session topics.

    Raises InvalidRecord when the id is malformed.

    >>> session_of("acme:chat-1~01HF7YAT00000!x")
    'acme:chat-1'
    """
    subject = any_id.partition("!")[0]
    session, mark, turn = subject.partition("~")
    if mark and not _TURN.fullmatch(turn):
        raise InvalidRecord("id", f"{any_id!r} has a malformed turn")
    tenant, colon, name = session.partition(":")
    if not (colon and _TENANT.fullmatch(tenant) and _NAME.fullmatch(name)):
        raise InvalidRecord("id", f"{any_id!r} does not begin with <tenant>:<name>")
    return session


def tenant_of(any_id: str) -> str:
    """The tenant that an id belongs to. Raises InvalidRecord when malformed."""
    return session_of(any_id).partition(":")[0]


def answer(interaction: str, choice: int) -> str:
    """The name of one answer: ``<interaction>/<choice>``."""
    return f"{interaction}/{choice}"


def other_answer(interaction: str, text: str) -> tuple[str, int]:
    """The interaction and choice that ``Feedback.preferred_over`` names, said of ``interaction``.

    A number is a choice of the same interaction, an interaction id its choice 0, and there is
    :func:`answer`. Raises InvalidRecord (``preferred_over``) when it is malformed, of another
    session, or no choice from 0 to 127.

    >>> other_answer("acme:chat-1~01HF7YAT00000", "1")
    ('acme:chat-1~01HF7YAT00000', 1)
    """
    other, slash, choice = text.rpartition("/")
    if not slash:
        other, choice = (interaction, text) if _CHOICE.fullmatch(text) else (text, "0")
    if not (_CHOICE.fullmatch(choice) and int(choice) < MAX_CHOICES):
        raise InvalidRecord("preferred_over", f"{text!r}: a choice is 0 to {MAX_CHOICES - 1}")
    try:
        session = session_of(other)
    except InvalidRecord as error:
        raise InvalidRecord("preferred_over", f"{text!r} is no answer: {error}") from None
    if not is_interaction(other) or "!" in other:
        raise InvalidRecord("preferred_over", f"{text!r} is no answer")
    if session != session_of(interaction):
        raise InvalidRecord("preferred_over", f"{text!r} is of another session")
    return other, int(choice)


def is_interaction(any_id: str) -> bool:
    """Whether an id (not of feedback) names one interaction rather than a session."""
    return "~" in any_id


def trajectory(interaction: str, choice: int, inputs: Sequence[str]) -> str:
    """The id of a revision, from what went into it: feedback ids and verdicts, in order."""
    return str(uuid.uuid5(_NAMESPACE, "\x1f".join((interaction, str(choice), *inputs))))
