"""What the join keeps: table keys and values.

A value is inserted once under the coordinate of the record that it comes from, and never
rewritten, so a worker that lost its partition can only repeat what its successor says. Values are
msgpack; of prompts and outputs, the light facts below are the same bytes read without their
content.

======================  =============================================================
key                     value
======================  =============================================================
``<p>/prompts/<o>``     Kept prompt: append time, Prompt
``<p>/outputs/<o>``     Kept output: append time, Output
``<p>/feedback/<o>``    FeedbackFact, and the text of a demonstration
``<p>/refused/<o>``     Refusal: feedback at that offset that no schema fitted at the time
``<p>/ticks/<o>``       Tick that had to wait for its ends
``<p>/verdict/<o>/<n>`` Verdict: part n of what the tick at that offset decided
======================  =============================================================
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

import msgspec

from tailrace.events import Component, Feedback, Output, Prompt
from tailrace.topics import MAX_RECORD_BYTES

MAX_VALUE_BYTES = MAX_RECORD_BYTES + 512 * 1024
"""Largest value: what is kept is a little larger than what came."""
PART_BYTES = 1024 * 1024
"""About the size of a verdict's stored part, so that no value outgrows a record."""
R = TypeVar("R")


class Reader(Protocol):
    """The table, for who only reads it."""

    def get(self, key: bytes) -> bytes | None:
        """A value."""


class Store(Reader, Protocol):
    """The table, as far as the join knows it."""

    def insert(self, key: bytes, value: bytes) -> None:
        """Put a value where none is."""

    def delete(self, key: bytes) -> None:
        """Drop a value."""


class Kept(msgspec.Struct, Generic[R], frozen=True, omit_defaults=True):
    """A record and the time it was appended."""

    time_ms: int
    record: R
    mark: bytes = b""
    """Of a prompt, where the spec has implicit terms: :func:`services.rewards.session.mark`."""
    traceparent: str = ""
    """Of the request that it is of; empty: it had none."""


class _LightPrompt(msgspec.Struct, frozen=True):
    interaction_id: str
    learn: bool | None = None
    group_id: str | None = None


class _LightOutput(msgspec.Struct, frozen=True):
    interaction_id: str
    choice: int = 0
    error: str | None = None


class PromptFact(msgspec.Struct, frozen=True):
    """A prompt without its content."""

    offset: int
    time_ms: int
    interaction_id: str
    learn: bool
    group_id: str | None
    mark: bytes = b""


class OutputFact(msgspec.Struct, frozen=True):
    """An output without its content."""

    offset: int
    time_ms: int
    interaction_id: str
    choice: int
    failed: bool
    """It is an infrastructure failure, never a bad answer."""


class FeedbackFact(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A feedback record that was let in, without its text."""

    offset: int
    time_ms: int
    feedback_id: str
    interaction_id: str | None = None
    choice: int = 0
    retract: bool = False
    names: str | None = None
    """The feedback id that it replaces or retracts."""
    target: int | None = None
    """The offset of that one; None: there is no such feedback before this."""
    metric: str | None = None
    boolean: bool | None = None
    number: float | None = None
    category: str | None = None
    kind: str | None = None
    """comment, demonstration or preference; of other kinds the value says it."""
    preferred_over: tuple[str, int] | None = None
    """The interaction and choice that lost."""
    final: bool = False
    source: str | None = None
    """user, implicit or grader; None: it was kept before this was."""
    traceparent: str = ""
    """Of the request that brought it."""
    grader: str | None = None
    """Which grader said it, as :func:`services.rewards.account.grader_of` names it; None: none did,
    or it was kept before this was."""
    newest_ms: int = 0
    """When the newest turn began that its target is about, which may be gone before this is."""
    body: bytes = b""
    """Digest of everything that makes the same id a duplicate or a conflict."""

    @property
    def subject(self) -> str:
        """The interaction or session that it is about."""
        return self.feedback_id.partition("!")[0]

    @property
    def answers(self) -> list[tuple[str, int]]:
        """The interactions and choices that it names: none where it is about a session."""
        if self.interaction_id is None:
            return []
        named = [(self.interaction_id, self.choice)]
        return named if self.preferred_over is None else [*named, self.preferred_over]

    def rejects(self, interaction_id: str, choice: int) -> bool:
        """Whether it prefers another answer over this one."""
        return self.preferred_over == (interaction_id, choice)


class _Demonstration(FeedbackFact, frozen=True, kw_only=True, omit_defaults=True):
    """As it is stored: with its text."""

    text: str | None = None


class Refusal(msgspec.Struct, frozen=True):
    """Why a feedback record could not be read when it was first seen."""

    reason: str
    detail: str = ""
    time_ms: int = 0


class Closing(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The end of an entry (an interaction's choice), or a later revision of it."""

    interaction_id: str
    choice: int = 0
    orphan: bool = False
    """A prompt (choice -1) without outputs, or an output without prompt: there is no trajectory."""
    revision: int = 0
    trajectory_id: str = ""
    supersedes: str | None = None
    deadline_ms: int = 0
    feedback_end: int = 0
    """The tick's end of feedback."""
    windows: dict[str, int] = {}
    """Of the first closing, where the wait for some metrics ended before the deadline."""
    signals: dict[str, bool] = {}
    """The implicit terms as the first closing saw them."""
    inputs: list[int] = []
    """Offsets of the feedback that counts."""
    shares: list[float] = []
    """How much of each is this answer's. Empty: all of all."""
    reward: float | None = None
    components: list[Component] = []
    spec: str = ""


class Settled(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The outcome of one feedback record."""

    offset: int
    outcome: str
    reason: str | None = None
    trajectories: list[str] = []


class Verdict(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a tick decided (one part of it)."""

    tick: int
    time_ms: int
    part: int = 0
    closings: list[Closing] = []
    settled: list[Settled] = []
    evicted_ms: int = 0
    """Turns that began up to then are evicted. 0: the tick moved that no further."""


_ENCODER = msgspec.msgpack.Encoder()
_PROMPT = msgspec.msgpack.Decoder(Kept[Prompt])
_OUTPUT = msgspec.msgpack.Decoder(Kept[Output])
_LIGHT_PROMPT = msgspec.msgpack.Decoder(Kept[_LightPrompt])
_LIGHT_OUTPUT = msgspec.msgpack.Decoder(Kept[_LightOutput])


def key_of(partition: int, kind: str, offset: int, part: int | None = None) -> bytes:
    """A table key."""
    return f"{partition}/{kind}/{offset}{'' if part is None else f'/{part}'}".encode()


def parse_key(key: bytes) -> tuple[int, str, int]:
    """Partition, kind and offset of a table key."""
    partition, kind, offset = key.decode().split("/")[:3]
    return int(partition), kind, int(offset)


def encode(value: object) -> bytes:
    """A table value."""
    return _ENCODER.encode(value)


def encode_feedback(fact: FeedbackFact, event: Feedback) -> bytes:
    """A feedback's table value: of a demonstration with the text, which the memory goes without."""
    if fact.kind != "demonstration" or event.content is None:
        return encode(fact)
    return encode(_Demonstration(**msgspec.structs.asdict(fact), text=event.content.text))


def text(value: bytes) -> str | None:
    """The text in a feedback's table value."""
    return msgspec.msgpack.decode(value, type=_Demonstration).text


def in_parts(
    closings: list[Closing], settled: list[Settled]
) -> Iterator[tuple[list[Closing], list[Settled]]]:
    """Decisions in their order, by the part of the verdict that they are stored in."""
    part: tuple[list[Closing], list[Settled]] = ([], [])
    room = PART_BYTES
    decisions: list[Closing | Settled] = [*closings, *settled]
    for one in decisions:
        size = len(encode(one))
        if size > room and room < PART_BYTES:
            yield part
            part, room = ([], []), PART_BYTES
        if isinstance(one, Closing):
            part[0].append(one)
        else:
            part[1].append(one)
        room -= size
    if any(part):
        yield part


def prompt(value: bytes) -> Kept[Prompt]:
    """A prompt's table value, whole."""
    return _PROMPT.decode(value)


def output(value: bytes) -> Kept[Output]:
    """An output's table value, whole."""
    return _OUTPUT.decode(value)


def prompt_fact(offset: int, value: bytes) -> PromptFact:
    """A prompt's table value without its content."""
    kept = _LIGHT_PROMPT.decode(value)
    record = kept.record
    return PromptFact(
        offset,
        kept.time_ms,
        record.interaction_id,
        record.learn is True,
        record.group_id,
        kept.mark,
    )


def output_fact(offset: int, value: bytes) -> OutputFact:
    """An output's table value without its content."""
    kept = _LIGHT_OUTPUT.decode(value)
    record = kept.record
    failed = record.error is not None
    return OutputFact(offset, kept.time_ms, record.interaction_id, record.choice, failed)
