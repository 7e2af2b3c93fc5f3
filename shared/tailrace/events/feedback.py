"""What was said of an answer, the reward that came of it, and what became of either."""

from __future__ import annotations

from tailrace.events.base import Coordinates, Struct
from tailrace.events.turns import Route, VersionSpan


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
