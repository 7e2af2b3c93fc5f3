"""What was trained, the versions that came of it, what engines did with them and are to serve."""

from __future__ import annotations

from tailrace.events.base import Coordinates, Struct


class StepInput(Struct, frozen=True, kw_only=True):
    """One trajectory of an optimizer step."""

    partition: int = 0
    offset: int = 0
    trajectory_id: str
    objective: str | None = None
    weight: float | None = None
    age_versions: int | None = None
    """Weight changes between the oldest version that sampled it and the one it was trained on;
    None: sampled by none of this history."""
    reward: float | None = None
    """What it was trained with."""
    before: float | None = None
    """Of a compensation: what an earlier revision of the same answer had been trained with, so that
    ``reward`` less this was its advantage."""


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
