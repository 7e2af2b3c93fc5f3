"""The records that travel on the topics, typed.

One class per Avro record in ``schemas/``; a test derives the Avro schema of each class and holds it
against the newest file. Everything that produces or consumes imports its records from here; how
they
become bytes is :mod:`tailrace.wire`, where they travel is :mod:`tailrace.topics`.

Rules that keep every past log readable (FULL_TRANSITIVE): vocabularies are strings, a union is only
ever ``null`` and one type, only ids and times lack a default, integers are long and reals double.
Personal content (text, tokens, comments) sits in the nested nullable ``content`` record.
Token ids are packed little-endian int32, logprobs little-endian float32 (:mod:`tailrace.packing`).
"""

from __future__ import annotations

import json
from typing import Any

import msgspec


class Struct(msgspec.Struct, frozen=True):
    """Base of all records: immutable, built by keyword."""


class Coordinates(Struct, frozen=True, kw_only=True):
    """Where a record lies: the unit of every account."""

    topic: str = ""
    partition: int = 0
    offset: int = 0


class VersionSpan(Struct, frozen=True, kw_only=True):
    """Tokens ``[start, end)`` of an answer were sampled under one weight version."""

    version: int | None = None
    """The published version; None where the engine could not name it."""
    start: int = 0
    """First token, counted from the start of the answer."""
    end: int = 0
    """One past the last token."""


class Route(Struct, frozen=True, kw_only=True):
    """Which weights a request was sent to, and how likely that was."""

    channel: str | None = None
    """``live`` or ``candidate``."""
    version: int | None = None
    """The version the client asked for; None: whatever the channel serves."""
    propensity: float | None = None
    """Probability with which the channel was drawn."""


class PromptContent(Struct, frozen=True, kw_only=True):
    """What was asked."""

    messages: str | None = None
    """The OpenAI messages (or the plain prompt) as JSON text."""
    prompt_token_ids: bytes | None = None
    """Packed int32 ids that the engine was given."""


class Prompt(Struct, frozen=True, kw_only=True):
    """One request to the model, before its answer is known."""

    interaction_id: str
    session_id: str
    event_time_ms: int
    tenant: str | None = None
    principal: str | None = None
    """Public id of the key that authenticated the caller."""
    user: str | None = None
    """A pseudonym that the client gives."""
    model: str | None = None
    sampling: dict[str, str] = {}
    """Every sampling parameter that is not the default: name to its JSON text. ``n`` included."""
    logprobs_mode: str | None = None
    """The distribution that output logprobs describe, in the engine's words
    (``processed_logprobs``)."""
    route: Route | None = None
    learn: bool | None = None
    """Consent: may this interaction be trained on. None: unknown, read as no."""
    group_id: str | None = None
    group_size: int | None = None
    task: str | None = None
    tags: dict[str, str] = {}
    content: PromptContent | None = None


class OutputContent(Struct, frozen=True, kw_only=True):
    """What was answered."""

    message: str | None = None
    """The assistant message as OpenAI has it, JSON text."""
    token_ids: bytes | None = None
    """Packed int32 ids that the engine sampled."""
    logprobs: bytes | None = None
    """Packed float32 log-probability of each sampled token, under the sampling distribution."""


class Output(Struct, frozen=True, kw_only=True):
    """One choice of one answer."""

    interaction_id: str
    choice: int = 0
    event_time_ms: int
    engine: str | None = None
    finish_reason: str | None = None
    weight_versions: list[VersionSpan] = []
    ttft_ms: float | None = None
    total_ms: float | None = None
    error: str | None = None
    """An infrastructure failure, never a bad answer."""
    untrainable: str | None = None
    """Why this answer must not be trained on; None: it may be."""
    content: OutputContent | None = None


class FeedbackContent(Struct, frozen=True, kw_only=True):
    """What the user wrote."""

    text: str | None = None


class Feedback(Struct, frozen=True, kw_only=True):
    """Something somebody said about an answer or a session."""

    feedback_id: str
    interaction_id: str | None = None
    choice: int = 0
    session_id: str | None = None
    event_time_ms: int
    tenant: str | None = None
    kind: str | None = None
    """boolean, number, category, comment, demonstration or preference."""
    metric: str | None = None
    boolean: bool | None = None
    number: float | None = None
    category: str | None = None
    preferred_over: str | None = None
    """The answer that lost, a choice or a turn of the same session: :func:`ids.other_answer`."""
    action: str = "set"
    """``set`` or ``retract``."""
    replaces: str | None = None
    """The feedback id that this one supersedes or retracts."""
    source: str = "user"
    """``user``, ``grader`` or ``implicit``."""
    grader: str | None = None
    principal: str | None = None
    user: str | None = None
    tags: dict[str, str] = {}
    content: FeedbackContent | None = None


class Component(Struct, frozen=True, kw_only=True):
    """One term of a reward."""

    name: str = ""
    value: float | None = None
    """None: the term had nothing to say, for ``reason``."""
    weight: float | None = None
    reason: str | None = None
    """Why there is no value, or what was done to it (``discounted 0.81``)."""


class TrajectoryContent(Struct, frozen=True, kw_only=True):
    """The training fields of prompt and output together."""

    messages: str | None = None
    prompt_token_ids: bytes | None = None
    message: str | None = None
    token_ids: bytes | None = None
    logprobs: bytes | None = None
    demonstration: str | None = None
    """What the answer should have been: the newest standing edit of it."""


class Trajectory(Struct, frozen=True, kw_only=True):
    """A prompt, its answer and the reward that feedback gave it: the trainer's input."""

    trajectory_id: str
    interaction_id: str
    choice: int = 0
    event_time_ms: int
    revision: int = 0
    supersedes: str | None = None
    reward: float | None = None
    """None: nobody said anything and the spec has no default."""
    components: list[Component] = []
    reward_spec: str | None = None
    """Hash of the reward spec that made the reward."""
    feedback_ids: list[str] = []
    preferred_over: list[str] = []
    """The answers (``<interaction>/<choice>``) that standing preferences put below this one."""
    tenant: str | None = None
    principal: str | None = None
    user: str | None = None
    learn: bool | None = None
    route: Route | None = None
    group_id: str | None = None
    group_size: int | None = None
    task: str | None = None
    tags: dict[str, str] = {}
    sampling: dict[str, str] = {}
    logprobs_mode: str | None = None
    model: str | None = None
    engine: str | None = None
    finish_reason: str | None = None
    weight_versions: list[VersionSpan] = []
    error: str | None = None
    untrainable: str | None = None
    prompt_log_time_ms: int | None = None
    output_log_time_ms: int | None = None
    first_feedback_log_time_ms: int | None = None
    last_feedback_log_time_ms: int | None = None
    closed_log_time_ms: int | None = None
    """Log time at which the wait for feedback ended."""
    content: TrajectoryContent | None = None


class Receipt(Struct, frozen=True, kw_only=True):
    """What became of one feedback record or one trajectory record."""

    source: Coordinates = Coordinates()
    subject_id: str
    """The feedback id or trajectory id at those coordinates; empty where it could not be read."""
    event_time_ms: int
    stage: str = ""
    """``rewards`` (subject is feedback) or ``trainer`` (subject is a trajectory)."""
    outcome: str = ""
    reason: str | None = None
    trajectories: list[str] = []
    """Rewards: what the feedback went into. Trainer: the subject, then what superseded it."""
    model: str | None = None
    version: int | None = None
    """Trainer: the version that was being built when the record was decided."""


class StepInput(Struct, frozen=True, kw_only=True):
    """One trajectory of an optimizer step."""

    partition: int = 0
    offset: int = 0
    trajectory_id: str
    objective: str | None = None
    weight: float | None = None


class Step(Struct, frozen=True, kw_only=True):
    """The ledger: one optimizer step, its inputs in order and its figures."""

    model: str = ""
    step: int = 0
    version: int = 0
    """The version that this step is part of."""
    event_time_ms: int
    inputs: list[StepInput] = []
    lr: float | None = None
    seed: int | None = None
    threads: int | None = None
    processes: int | None = None
    code: str | None = None
    torch: str | None = None
    reseeded: bool = False
    """The optimizer went on from published weights, not from its own checkpoint; the figure
    ``optimizer_reset`` says whether its moments began at nothing."""
    figures: dict[str, float] = {}


class Chunks(Struct, frozen=True, kw_only=True):
    """Where the bytes of an update lie on ``model-chunks``, in order."""

    partition: int = 0
    offsets: list[int] = []


class Range(Struct, frozen=True, kw_only=True):
    """What a version decided of one partition of ``trajectories``: ``[start, end)`` less
    ``held``."""

    partition: int = 0
    start: int = 0
    end: int = 0
    held: list[int] = []
    """Undecided offsets below ``end``; a later version decides them."""
    expired_to: int | None = None
    """Offsets from ``start`` to here were gone before they were read: ``stale: expired``."""


class Canary(Struct, frozen=True, kw_only=True):
    """A fixed continuation and its logprobs under the new weights, to check a swap by."""

    prompt_tokens: bytes | None = None
    output_tokens: bytes | None = None
    logprobs: bytes | None = None


class ModelUpdate(Struct, frozen=True, kw_only=True):
    """The manifest of one version."""

    model: str = ""
    version: int = 0
    created_ms: int
    base_version: int | None = None
    base_digest: str | None = None
    kind: str | None = None
    """``keyframe``, ``delta`` or ``adapter``."""
    codec: str | None = None
    chunks: Chunks | None = None
    """None: a zero-step version, same weights as its base; or the bytes are at ``uri``."""
    uri: str | None = None
    bytes: int | None = None
    sha256: str | None = None
    """Of the byte stream, hex."""
    digest: str | None = None
    """Of the whole model after the update, hex."""
    keyframe_version: int | None = None
    config_digest: str | None = None
    ranges: list[Range] = []
    first_step: int | None = None
    last_step: int | None = None
    first_feedback_ms: int | None = None
    last_feedback_ms: int | None = None
    figures: dict[str, float] = {}
    canary: Canary | None = None


class ModelAck(Struct, frozen=True, kw_only=True):
    """What an engine did with a version."""

    engine: str
    model: str | None = None
    version: int = 0
    event_time_ms: int
    state: str = ""
    """``applied``, ``refused`` or ``serving``; ``loaded``: an adapter beside what is served."""
    reason: str | None = None
    apply_ms: float | None = None
    pause_ms: float | None = None
    digest: str | None = None


class Release(Struct, frozen=True, kw_only=True):
    """Which versions are to be served. The newest of a model counts, alone."""

    model: str = ""
    event_time_ms: int
    mode: str = "follow"
    """``follow`` the newest version, or ``pin`` one."""
    live: int | None = None
    """The version to serve; of ``follow`` the one to go on from, None: any."""
    candidate: int | None = None
    share: float | None = None
    reason: str | None = None
    withdrawn_to: int | None = None
    """Versions after ``live`` up to this one were rolled back, with all that descends from them."""
    data: str | None = None
    """What becomes of the records that the withdrawn versions decided: ``skip`` or ``retrain``."""
    command: Coordinates | None = None
    """The order on ``control`` that this answers."""


class Alarm(Struct, frozen=True, kw_only=True):
    """A detector fired or cleared."""

    stream: str
    event_time_ms: int
    detector: str | None = None
    state: str = "fired"
    """``fired`` or ``cleared``."""
    value: float | None = None
    baseline: float | None = None
    seen: int | None = None
    """Values that the detector had seen when it fired."""
    source: Coordinates | None = None
    """The record that made it fire."""
    message: str | None = None


class Command(Struct, frozen=True, kw_only=True):
    """An order given by a person."""

    model: str = ""
    event_time_ms: int
    command: str = ""
    """freeze, thaw, drain or keyframe, of the trainer; rollback, pin or follow, of the releases
    service; erase."""
    version: int | None = None
    principal: str | None = None
    reason: str | None = None
    parameters: dict[str, str] = {}


class Tick(Struct, frozen=True, kw_only=True):
    """The rewards clock of one partition (see DESIGN section 5)."""

    partition: int = 0
    event_time_ms: int
    """Log time that is safely past: entries whose deadline is not later may close."""
    ends: dict[str, int] = {}
    """End offset of each input topic in this partition, fetched after ``event_time_ms`` was."""


RECORDS: tuple[type[Struct], ...] = (
    Prompt,
    Output,
    Feedback,
    Trajectory,
    Receipt,
    Step,
    ModelUpdate,
    ModelAck,
    Release,
    Alarm,
    Command,
    Tick,
)


def parameter(sampling: dict[str, str], name: str, default: Any) -> Any:
    """The value of one sampling parameter of a Prompt or Trajectory.

    Raises ValueError where it is no JSON.

    >>> parameter({"temperature": "0.7"}, "temperature", 1.0)
    0.7
    """
    text = sampling.get(name)
    try:
        return default if text is None else json.loads(text)
    except RecursionError as error:
        raise ValueError(f"{name}: {error}") from None
