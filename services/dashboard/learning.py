"""Sections of the live picture: what people say, and what the weights make of it. Structs alone.

Parts of :class:`services.dashboard.picture.Picture`. The text under each field is what the page
shows where one points at the figure. Times are milliseconds since 1970, by the broker's clock
(append time) unless it says otherwise. None: not known yet.
"""

from __future__ import annotations

import msgspec


class Section(msgspec.Struct, kw_only=True):
    """Base of sections and their rows."""


class Window(Section, kw_only=True):
    """What the answers that closed in one stretch of time earned."""

    start_ms: int
    """Begin of this stretch; answers count where their wait for feedback ended."""
    answers: int = 0
    """Trajectories that closed with a reward (topic trajectories, newest revision of each)."""
    satisfied: int = 0
    """Those of them whose reward is above the setting satisfied_above (default 0)."""
    share: float | None = None
    """Satisfied answers by all with a reward."""
    share_low: float | None = None
    """Lower end of the 95 % interval of the share, by Wilson."""
    share_high: float | None = None
    """Upper end of the 95 % interval of the share, by Wilson."""
    reward: float | None = None
    """Mean reward."""
    reward_low: float | None = None
    """Lower end of the 95 % interval of the mean reward, by Student's t; none of one answer."""
    reward_high: float | None = None
    """Upper end of the 95 % interval of the mean reward, by Student's t; none of one answer."""


class OfVersion(Window, kw_only=True):
    """The same for the answers of one version. ``start_ms``: its first answer that closed."""

    version: int
    """Weight version that sampled most of an answer's tokens (trajectories, weight_versions)."""


class Reward(Section, kw_only=True):
    """How satisfied people are: over time, and by version."""

    now: Window
    """The newest answers with a reward, as many as the setting newest_answers says (default
    200)."""
    windows: list[Window] = []
    """Over time, oldest first; stretches without answers are left out."""
    window_s: float = 0.0
    """How long one stretch is, seconds."""
    by_version: list[OfVersion] = []
    """By weight version, oldest first; of the newest versions with answers."""
    unrewarded: int = 0
    """Trajectories that closed without any reward: nobody said anything and the reward spec has no
    default."""


class Stage(Section, kw_only=True):
    """One part of a way."""

    name: str
    """joined: from the feedback's append to rewards' receipt. trained: from there to the trainer's
    receipt, which appears with the version. served: from there to an engine's ack of that version
    or a later one."""
    p50_s: float | None = None
    """Half of the newest feedback took no longer than this, seconds."""
    p95_s: float | None = None
    """95 % of the newest feedback took no longer than this, seconds."""


class Served(Section, kw_only=True):
    """One feedback that is being served."""

    time_ms: int
    """When the first engine acknowledged the version that it was trained into."""
    seconds: float
    """From its append to that ack."""
    version: int
    """The version that it was trained into."""


class Latency(Section, kw_only=True):
    """From feedback to the weights that serve it."""

    samples: int = 0
    """Feedback that was seen through from its append to an ack, the newest of them (topics
    feedback, receipts, model-acks)."""
    p50_s: float | None = None
    """Half of them were served after this many seconds or sooner."""
    p95_s: float | None = None
    """95 % of them were served after this many seconds or sooner."""
    stages: list[Stage] = []
    """Where the time goes."""
    recent: list[Served] = []
    """The newest, oldest first, thinned out to at most 200."""


class Applied(Section, kw_only=True):
    """What one engine did with one version (topic model-acks)."""

    engine: str
    """Id of the engine."""
    state: str
    """applied, serving, refused, or loaded (an adapter beside what is served)."""
    time_ms: int
    """When it said so first."""
    pause_ms: float | None = None
    """How long requests stood still for the swap."""
    apply_ms: float | None = None
    """From the last chunk to serving."""
    reason: str | None = None
    """Why it was refused."""


class Version(Section, kw_only=True):
    """One published version (topic model-updates; what it was trained on: steps)."""

    version: int
    """Its number; never used twice."""
    base: int | None = None
    """The version that it was made from."""
    kind: str = ""
    """keyframe (whole), delta (what changed), adapter, or label: its base's weights under a new
    number, published to account for records that were not trained on."""
    bytes: int | None = None
    """How much travelled over Kafka."""
    time_ms: int = 0
    """When its manifest was appended."""
    steps: int = 0
    """Optimizer steps in it."""
    answers: int = 0
    """Trajectories that its steps were given."""
    objectives: dict[str, int] = {}
    """Those by the objective that they were trained with."""
    sources: dict[str, int] = {}
    """Those by who spoke of them: user, grader, implicit, other, several, or verifier where no
    feedback did; unknown where the dashboard has not read the trajectory."""
    engines: list[Applied] = []
    """What each engine did with it."""
    serving: list[str] = []
    """Engines that serve it now, by their last ack; those that were heard in the last hour."""
    withdrawn: bool = False
    """Rolled back, or made from what was: neither trained on nor served."""
    sampled: int = 0
    """Answers of which it sampled tokens, as far as the dashboard has read outputs."""
    figures: dict[str, float] = {}
    """Of its last step, as the manifest has them."""


class Versions(Section, kw_only=True):
    """The timeline of versions."""

    published: int = 0
    """How many there are (topic model-updates, from its beginning)."""
    head: int | None = None
    """The newest version that is not withdrawn."""
    served: int | None = None
    """The version that engines are to serve, by the newest release."""
    trained: int | None = None
    """The version that training goes on from."""
    release: str = ""
    """What the newest release says (topic releases)."""
    timeline: list[Version] = []
    """The newest versions, oldest first, as many as the setting versions_shown says."""


class StepPoint(Section, kw_only=True):
    """One optimizer step (topic steps): its figures, None where it does not have one."""

    step: int
    """Its number."""
    version: int
    """The version that it is part of."""
    time_ms: int
    """When it was taken, by the trainer's clock."""
    answers: float | None = None
    """Trajectories in it."""
    reward: float | None = None
    """Mean reward of the answers that were sampled."""
    ess: float | None = None
    """Effective sample size of the importance ratios, as a share of the tokens:
    (sum r)^2 / (n sum r^2). Near 1: the data is as good as fresh."""
    mismatch_kl: float | None = None
    """KL(sampling || training) per token, the k3 estimate: how far the weights that are trained
    are from those that answered."""
    kl_base: float | None = None
    """KL(training || version 0) per token, k3: how far the model has moved. Only where the
    trainer is anchored to version 0."""
    entropy: float | None = None
    """Of the sampled tokens, nats: an estimate. Falling towards 0: answers get all alike."""
    length_tokens: float | None = None
    """Mean length of the answers."""
    staleness: float | None = None
    """Mean age of the answers in weight changes (figure lag_mean)."""
    staleness_max: float | None = None
    """Age of the oldest answer in weight changes (figure lag_max)."""
    loss: float | None = None
    """Of the whole step."""
    grad_norm: float | None = None
    """Before the gradient is scaled down."""
    clip_fraction: float | None = None
    """Share of the tokens whose gradient a bound changed."""
    step_s: float | None = None
    """How long it took, seconds."""
    tokens_per_s: float | None = None
    """Prompt and answer tokens by those seconds."""
    idle_share: float | None = None
    """Share of the time since the last step that went by waiting for data."""


class Training(Section, kw_only=True):
    """How training goes."""

    steps: int = 0
    """Optimizer steps so far (topic steps, from its beginning)."""
    answers: int = 0
    """Trajectories in them."""
    points: list[StepPoint] = []
    """The newest steps, oldest first, as many as the setting steps_shown says."""
