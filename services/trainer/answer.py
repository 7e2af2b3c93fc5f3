"""From a Trajectory to what can be trained on, or the reason why not. Pure.

Used by the intake, when a record is first seen, and by the ledger, which reads the same records
again: both must come to the same :class:`Answer`. What the record alone does not say (by which
objective it was trained, how old it was, what it compensates for) a Step says of each input:
:func:`input_of` writes it, :func:`as_trained` puts it back.
"""

from __future__ import annotations

from collections.abc import Callable
import math

import msgspec

from tailrace import ids
from tailrace.errors import InvalidRecord
from tailrace.events import StepInput, Trajectory, parameter
from tailrace.log.base import LogRecord
from tailrace.packing import unpack_ids, unpack_logprobs
from tailrace.traces import of_record

LOGPROBS_MODE = "processed_logprobs"
"""The only distribution that behaviour logprobs may describe: the one that was sampled from."""
SFT, DPO, KTO = "sft", "dpo", "kto"
NOT_LINEAR = (SFT, DPO, KTO)
"""The objectives that are no policy gradient: their loss is not linear in an advantage."""
MIN_LOGPROB, MAX_LOGPROB = -9999.0, 1e-3
"""vLLM's least, and 0 with some rounding: what lies beyond no engine has sampled."""
MIN_TEMPERATURE = 0.01
"""Below it vLLM samples at another one, or greedily; the gateway calls that greedy as well."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One answer with its reward, ready to be trained on."""

    partition: int
    offset: int
    time_ms: int
    """Append time of the trajectory record."""
    trajectory_id: str
    session: str
    prompt: list[int]
    """Token ids that the engine was given."""
    tokens: list[int]
    """Token ids that it sampled, the end-of-turn token included."""
    logprobs: list[float]
    """Of ``tokens``, under the distribution that they were sampled from."""
    temperature: float
    reward: float
    """Of a demonstration 0 where nobody gave one: it is of the text that was sampled."""
    slice: str = ""
    oldest_version: int
    """Of the weights that sampled any of its tokens."""
    name: str = ""
    """``<interaction>/<choice>``."""
    below: list[str] = []
    """Names of the answers that preferences put below this one."""
    group: str | None = None
    """Session and group id; answers of one group are samples of one task."""
    group_size: int = 1
    """How many answers the group has, by whoever asked for them."""
    objective: str = ""
    """What it is trained by, from :mod:`services.trainer.routes`. From the record alone it is
    ``sft``, where ``tokens`` are a demonstration's, or empty."""
    age_versions: int | None = None
    """Weight changes between ``oldest_version`` and the one it was trained on; None: not in a step
    yet, or sampled by no version of the chain (a demonstration's may be)."""
    before: float | None = None
    """Of a compensation: the reward with which an earlier revision of it was trained. ``reward``
    less this is its advantage."""
    traceparent: str = ""
    """Of the request; empty: it had none."""
    closed_ms: int
    first_feedback_ms: int | None = None
    last_feedback_ms: int | None = None


class Refusal(msgspec.Struct, frozen=True):
    """Why a trajectory is not trained on: outcome and reason of its receipt."""

    outcome: str
    reason: str
    successor: str | None = None
    """The revision that took its place."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What the trainer can take."""

    model: str
    vocabulary: int
    """Token ids are below this."""
    max_tokens: int
    """Of prompt and answer together."""
    max_reward: float
    """Rewards are no further from 0."""
    encode: Callable[[str], list[int]] | None = None
    """Token ids of an answer's text, the end of turn included, to train on demonstrations; None:
    they are not trained on."""


def read(
    record: LogRecord, trajectory: Trajectory, limits: Limits, *, shown: bool = True
) -> Answer | Refusal:
    """What the trajectory is good for, by itself: not whether it is a repeat, a revision or old.

    ``shown`` False: as it was sampled, although it may have a demonstration, as a Step says whose
    limits were others.
    """
    refusal = _refusal(trajectory, limits)
    if refusal is not None:
        return refusal
    told = _demonstration(trajectory, limits) if shown else None
    if told is not None:
        return _answer(record, trajectory, *told, [0.0] * len(told[1]), 1.0, SFT)
    refusal = _unfit(trajectory, limits)
    if refusal is not None:
        return refusal
    content = trajectory.content
    assert content is not None
    try:
        prompt = unpack_ids(content.prompt_token_ids)
        tokens = unpack_ids(content.token_ids)
        logprobs = unpack_logprobs(content.logprobs)
        temperature = float(parameter(trajectory.sampling, "temperature", 1.0))
    except (ValueError, TypeError, OverflowError):
        return Refusal("untrainable", "content")
    reason = _content_fault(trajectory, prompt, tokens, logprobs, temperature, limits)
    if reason is not None:
        return Refusal("untrainable", reason)
    return _answer(record, trajectory, prompt, tokens, logprobs, temperature, "")


def input_of(answer: Answer) -> StepInput:
    """What a Step says of an answer that it was taken with."""
    return StepInput(
        partition=answer.partition,
        offset=answer.offset,
        trajectory_id=answer.trajectory_id,
        objective=answer.objective,
        weight=1.0,
        age_versions=answer.age_versions,
        reward=None if answer.objective == SFT else answer.reward,
        before=answer.before,
    )


def as_trained(answer: Answer, said: StepInput) -> Answer:
    """The answer of a record as a Step was taken with it. Of a reward that it does not say the
    record's counts."""
    return msgspec.structs.replace(
        answer,
        objective=said.objective or "",
        age_versions=said.age_versions,
        reward=answer.reward if said.reward is None else said.reward,
        before=said.before,
    )


def _answer(
    record: LogRecord,
    trajectory: Trajectory,
    prompt: list[int],
    tokens: list[int],
    logprobs: list[float],
    temperature: float,
    objective: str,
) -> Answer:
    session = ids.session_of(trajectory.interaction_id)
    group = trajectory.group_id
    versions = (s.version for s in trajectory.weight_versions if s.version is not None)
    assert trajectory.closed_log_time_ms is not None
    return Answer(
        partition=record.partition,
        offset=record.offset,
        time_ms=record.time_ms,
        trajectory_id=trajectory.trajectory_id,
        session=session,
        prompt=prompt,
        tokens=tokens,
        logprobs=logprobs,
        temperature=temperature,
        reward=0.0 if trajectory.reward is None else trajectory.reward,
        slice=trajectory.task or "",
        oldest_version=min(versions, default=0),
        name=ids.answer(trajectory.interaction_id, trajectory.choice),
        below=trajectory.preferred_over,
        group=None if group is None else f"{session} {group}",
        group_size=max(1, trajectory.group_size or 1),
        objective=objective,
        traceparent=of_record(record.headers),
        closed_ms=trajectory.closed_log_time_ms,
        first_feedback_ms=trajectory.first_feedback_log_time_ms,
        last_feedback_ms=trajectory.last_feedback_log_time_ms,
    )


def _refusal(t: Trajectory, limits: Limits) -> Refusal | None:
    if t.learn is not True:
        return Refusal("filtered", "no_consent")
    if t.error is not None:
        return Refusal("filtered", "infrastructure_error")
    if t.reward is not None and not abs(t.reward) <= limits.max_reward:
        return Refusal("untrainable", "reward")
    if t.closed_log_time_ms is None:
        return Refusal("untrainable", "closed_log_time")
    if t.model not in (None, limits.model):
        return Refusal("untrainable", "model")
    try:
        ids.session_of(t.interaction_id)
    except InvalidRecord:
        return Refusal("untrainable", "interaction_id")
    return None


def _unfit(t: Trajectory, limits: Limits) -> Refusal | None:
    """Why what was sampled is of no use."""
    if t.untrainable is not None:
        return Refusal("untrainable", t.untrainable)
    if t.reward is None:
        # What was said has no value by the reward spec: a comment, an edit that cannot be used.
        return Refusal("filtered", "unscored" if t.feedback_ids else "no_reward")
    if t.logprobs_mode != LOGPROBS_MODE:
        return Refusal("untrainable", "logprobs_mode")
    if t.content is None:
        return Refusal("untrainable", "content")
    return None


def _demonstration(t: Trajectory, limits: Limits) -> tuple[list[int], list[int]] | None:
    """(prompt, answer) of what the answer should have been; None: nobody said, or not usably.

    Whatever keeps the sampled text from being trained on (greedy sampling, a lost engine's tokens)
    says nothing against this one.
    """
    content = t.content
    if content is None or content.demonstration is None or limits.encode is None:
        return None
    try:
        prompt = unpack_ids(content.prompt_token_ids)
    except (ValueError, TypeError):
        return None
    tokens = limits.encode(content.demonstration)
    fits = prompt and tokens and len(prompt) + len(tokens) <= limits.max_tokens
    if not fits or min(prompt) < 0 or max(*prompt, *tokens) >= limits.vocabulary:
        return None
    return prompt, tokens


def _content_fault(
    t: Trajectory,
    prompt: list[int],
    tokens: list[int],
    logprobs: list[float],
    temperature: float,
    limits: Limits,
) -> str | None:
    if not prompt or not tokens or len(tokens) != len(logprobs):
        return "content"
    if len(prompt) + len(tokens) > limits.max_tokens:
        return "too_long"
    if min(min(prompt), min(tokens)) < 0 or max(max(prompt), max(tokens)) >= limits.vocabulary:
        return "vocabulary"
    if not all(MIN_LOGPROB <= logprob <= MAX_LOGPROB for logprob in logprobs):
        return "logprobs"
    if not MIN_TEMPERATURE <= temperature < math.inf:
        return "temperature"
    end = 0
    for span in t.weight_versions:
        if span.version is None:
            return "unknown_version"
        if span.start != end or span.end <= span.start:
            return "weight_versions"
        end = span.end
    return None if end == len(tokens) else "weight_versions"
