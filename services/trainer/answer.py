"""From a Trajectory to what can be trained on, or the reason why not. Pure.

Used by the intake, when a record is first seen, and by the ledger, which reads the same records
again: both must come to the same :class:`Answer`.
"""

from __future__ import annotations

import math

import msgspec

from tailrace import ids
from tailrace.errors import InvalidRecord
from tailrace.events import Trajectory, parameter
from tailrace.log.base import LogRecord
from tailrace.packing import unpack_ids, unpack_logprobs

LOGPROBS_MODE = "processed_logprobs"
"""The only distribution that behaviour logprobs may describe: the one that was sampled from."""
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
    slice: str = ""
    oldest_version: int
    """Of the weights that sampled any of its tokens."""
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


def read(record: LogRecord, trajectory: Trajectory, limits: Limits) -> Answer | Refusal:
    """What the trajectory is good for, by itself: not whether it is a repeat, a revision or old."""
    refusal = _refusal(trajectory, limits)
    if refusal is not None:
        return refusal
    content = trajectory.content
    assert content is not None and trajectory.reward is not None
    assert trajectory.closed_log_time_ms is not None
    try:
        prompt = unpack_ids(content.prompt_token_ids)
        tokens = unpack_ids(content.token_ids)
        logprobs = unpack_logprobs(content.logprobs)
        temperature = float(parameter(trajectory.sampling, "temperature", 1.0))
        session = ids.session_of(trajectory.interaction_id)
    except InvalidRecord:
        return Refusal("untrainable", "interaction_id")
    except (ValueError, TypeError, OverflowError):
        return Refusal("untrainable", "content")
    reason = _content_fault(trajectory, prompt, tokens, logprobs, temperature, limits)
    if reason is not None:
        return Refusal("untrainable", reason)
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
        reward=trajectory.reward,
        slice=trajectory.task or "",
        oldest_version=min(s.version for s in trajectory.weight_versions if s.version is not None),
        closed_ms=trajectory.closed_log_time_ms,
        first_feedback_ms=trajectory.first_feedback_log_time_ms,
        last_feedback_ms=trajectory.last_feedback_log_time_ms,
    )


def _refusal(t: Trajectory, limits: Limits) -> Refusal | None:
    if t.learn is not True:
        return Refusal("filtered", "no_consent")
    if t.error is not None:
        return Refusal("filtered", "infrastructure_error")
    if t.untrainable is not None:
        return Refusal("untrainable", t.untrainable)
    if t.reward is None:
        return Refusal("filtered", "no_reward")
    if not abs(t.reward) <= limits.max_reward:
        return Refusal("untrainable", "reward")
    if t.closed_log_time_ms is None:
        return Refusal("untrainable", "closed_log_time")
    if t.model not in (None, limits.model):
        return Refusal("untrainable", "model")
    if t.logprobs_mode != LOGPROBS_MODE:
        return Refusal("untrainable", "logprobs_mode")
    if t.content is None:
        return Refusal("untrainable", "content")
    return None


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
    if not all(math.isfinite(logprob) for logprob in logprobs):
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
