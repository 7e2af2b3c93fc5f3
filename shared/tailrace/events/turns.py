"""A request and its answers: what serving publishes."""

from __future__ import annotations

import json
from typing import Any

from tailrace.events.base import Struct


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
