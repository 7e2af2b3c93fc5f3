"""What is said of an interaction and of a version: the answers of :func:`tailrace.why.gather`.

:class:`Turn` (of an interaction, or of a feedback, which it marks) goes from the prompt to the
weights, :class:`Weights` (of a version) from the weights back to what moved them. As JSON the
member ``kind`` tells them apart: ``interaction`` or ``version``.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from tailrace.events import Range
from tailrace.explain import Fate, Heard, Revision
from tailrace.versions import Engine, Version


class Where(msgspec.Struct, frozen=True, kw_only=True):
    """Where a record lies."""

    topic: str
    """Without the prefix."""
    partition: int
    offset: int
    time_ms: int
    """When it was appended, by the broker's clock."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """The request."""

    where: Where
    session: str
    """Its conversation: all that is said in one is on one partition."""
    tenant: str | None
    user: str | None
    """A pseudonym that the client gave."""
    model: str | None
    learn: bool | None
    """Whether the user agreed that it is trained on. None: nobody said, which counts as no."""
    channel: str | None
    """``live`` or ``candidate``: which weights it was sent to."""
    task: str | None
    group: str | None
    """Answers of one group are samples of one task, and are measured by each other."""
    tags: dict[str, str]
    sampling: dict[str, str]
    """Every sampling parameter that is not the default: name to its JSON text."""
    messages: Any
    """The OpenAI messages, or the plain prompt. None: the record has no content."""
    tokens: int
    """How many the engine was given."""


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """One token of an answer."""

    id: int
    """Its number in the model's vocabulary."""
    logprob: float | None
    """How likely it was when it was sampled (natural logarithm), under the distribution that it was
    sampled from."""
    version: int | None
    """The weights that sampled it. None: the engine could not name them."""
    text: str | None = None
    """What it spells, where the reader has the model's tokenizer."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One answer, as it was served."""

    choice: int
    """Its number among the answers of the request."""
    where: Where
    engine: str | None
    """Who made it."""
    finish_reason: str | None
    error: str | None
    """A failure of the machinery, never a bad answer."""
    untrainable: str | None
    """Why it must not be trained on. None: it may be."""
    ttft_ms: float | None
    """From the request to the first token."""
    total_ms: float | None
    """From the request to the last token."""
    message: Any
    """The assistant's message as OpenAI has it. None: the record has no content."""
    versions: list[int]
    """Weights that sampled any of it, in that order."""
    tokens: list[Token]


class Advantage(msgspec.Struct, frozen=True, kw_only=True):
    """How far an answer pulled the weights: up where it is positive, down where it is negative."""

    value: float
    basis: Literal["revision", "demonstration", "pair", "step"]
    """Where the value is from. ``revision``: the answer was trained before with another reward, the
    difference is what counts; ``demonstration``: 1, it is to be imitated; ``pair``: 1 for the
    answer that was preferred, -1 for the other. ``step``: the reward less the mean reward of the
    step, in place of the baseline of the trainer, which the ledger does not hold."""


class Trained(msgspec.Struct, frozen=True, kw_only=True):
    """The optimizer step that took a trajectory, by the ledger."""

    where: Where
    step: int
    """Counted from the model's first step."""
    place: int
    """Its place in the step, from 0."""
    answers: int
    """How many the step took."""
    objective: str | None
    """By which loss it was trained."""
    weight: float | None
    """How much it counted beside the others."""
    age_versions: int | None
    """Weight changes between the oldest weights that sampled it and those it was trained on."""
    reward: float | None
    """With which it was trained; a demonstration has none."""
    before: float | None
    """The reward with which an earlier revision of the same answer had been trained."""
    advantage: Advantage | None
    """None: nothing to say, the ledger has no reward."""
    lr: float | None
    """Learning rate of the step."""
    figures: dict[str, float]
    """Of the step: loss, grad_norm, ess, mismatch_kl, entropy, reward, ..."""


class Serving(msgspec.Struct, frozen=True, kw_only=True):
    """An engine and one version."""

    engine: str
    since_ms: int | None
    """Append time of its first word that it has this version or one made from it; where it came
    later than an hour after the version, the first in the last hour. None: it never said so."""
    apply_ms: float | None
    """How long it took to put this very version in, all told. None: it went past it, or did not
    say."""
    pause_ms: float | None
    """How much of that it made no tokens."""
    refused: str | None
    """Why it would not take this very version. None: it did not refuse."""
    serves: bool
    """Whether what it serves now is this version or made from it."""
    now: Engine
    """The last that it said."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What the trainer decided of one trajectory, and what came of that. After a rollback that
    takes the data again there may be one more, for another version."""

    where: Where
    """Of the receipt."""
    trajectory_id: str
    fate: Fate
    """Outcome, reason and the version that was being built."""
    trained: Trained | None
    """None: no weights moved for it."""
    into: Version | None
    """The version of the fate. None: its manifest is not there."""
    serving: list[Serving]
    """Who has the version, where it was trained. By engine."""


class Turn(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="interaction"):
    """One interaction, from the prompt to the weights."""

    interaction_id: str
    feedback_id: str | None
    """The feedback that was asked about. None: the interaction was."""
    also: list[str]
    """Where that feedback is about the whole session: other interactions of which it made the
    reward, newest first."""
    asked: Asked | None
    """None: the prompt is not on the log (any more)."""
    answers: list[Answer]
    """By choice."""
    feedback: list[Heard]
    """All that was said of it, in the order of the log: by append time, then offset."""
    revisions: list[Revision]
    """Its rewards, term by term: by choice, oldest first. Terms are in the reward spec's order."""
    decisions: list[Decision]
    """What the trainer made of these, in the order of the log: by append time, then offset."""
    expired: list[str]
    """Topics whose records of that time are gone: what is missing here may have been there."""


class Ancestor(msgspec.Struct, frozen=True, kw_only=True):
    """A version that another comes from."""

    version: int
    kind: str
    """As in :class:`tailrace.versions.Version`."""
    created_ms: int
    withdrawn: bool
    children: list[int]
    """Versions made from it, this line's own included. More than one: a rollback forked here."""


class StepTaken(msgspec.Struct, frozen=True, kw_only=True):
    """One optimizer step of a version."""

    where: Where
    step: int
    answers: int
    lr: float | None
    reseeded: bool
    """The optimizer went on from published weights, not from its own checkpoint."""
    code: str | None
    """Of the trainer."""
    torch: str | None
    """Its version."""
    figures: dict[str, float]


class Mover(msgspec.Struct, frozen=True, kw_only=True):
    """An answer that moved a version."""

    interaction_id: str | None
    """None: its trajectory is not on the log any more."""
    choice: int | None
    trajectory_id: str
    partition: int
    """Of ``trajectories``."""
    offset: int
    step: int
    objective: str | None
    reward: float | None
    advantage: Advantage


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """The canary: a fixed text and how likely it is under these weights, by which an engine checks
    that it has them."""

    prompt: list[int]
    """Token ids."""
    output: list[Token]


class Weights(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="version"):
    """One version, from the weights back to what moved them."""

    model: str
    version: int
    row: Version
    """As ``tailrace models`` lists it: kind, size, digest, figures of the last step, who serves."""
    served: bool
    """It is the version that engines are to serve now."""
    trained: bool
    """It is the version that training goes on from now."""
    uri: str | None
    """Where its bytes are, when they are not on the log."""
    keyframe: int | None
    """The keyframe from which it is built."""
    ancestors: list[Ancestor]
    """Its bases, nearest first, at most twenty."""
    older: int
    """How many more there are before those."""
    children: list[Version]
    """Made from it, adapters included. By number."""
    ranges: list[Range]
    """Which records of ``trajectories`` it decided, by partition: from ``start`` to ``end`` less
    what is held back for a later one."""
    first_feedback_ms: int | None
    """Append time of the oldest feedback in it."""
    last_feedback_ms: int | None
    """Append time of the newest."""
    outcomes: dict[str, int]
    """What became of the records that it decided, by its receipts. By name."""
    objectives: dict[str, int]
    """How many answers its steps trained, by objective. By name."""
    steps: list[StepTaken]
    """In the order of the ledger."""
    canary: Probe | None
    serving: list[Serving]
    """Every engine that was heard in the last hour, or had it in the first. By name."""
    movers: list[Mover]
    """The answers with the largest advantages, either way, largest first; equal ones in the order
    of the ledger: by step, then place in it."""
    reward_mean: float | None
    """Of all answers trained with a reward."""
