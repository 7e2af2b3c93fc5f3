"""Answers in OpenAI's shapes: whole and as server-sent events, chat and text. Pure.

Beside OpenAI's fields: ``tailrace`` at the top (session, the weight versions that made the answer)
and in each finished choice (the version of each token, and why it cannot be trained on, if so).
Called by :mod:`services.gateway.app`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

import msgspec

from services.gateway.answers import Delta, Logprob, TokenLogprob
from services.gateway.chat import Choice, Interaction, message

Kind = Literal["chat", "text"]
DONE = b"data: [DONE]\n\n"


def whole(interaction: Interaction, kind: Kind) -> dict[str, Any]:
    """The response body of a plain request."""
    choices = []
    for choice in interaction.choices:
        shape: dict[str, Any] = {"index": choice.index, "finish_reason": _finish(choice)}
        if kind == "chat":
            shape["message"] = message(choice) | {"refusal": None}
        else:
            shape["text"] = "".join(choice.text)
        shape["logprobs"] = _logprobs(choice.logprobs, interaction, kind)
        shape["tailrace"] = _account(interaction, choice)
        choices.append(shape)
    name = "chat.completion" if kind == "chat" else "text_completion"
    return {
        **_head(interaction, name),
        "choices": choices,
        "usage": usage(interaction),
        "tailrace": _summary(interaction),
    }


def opening(interaction: Interaction, *, with_usage: bool) -> bytes:
    """The events that give each choice its role, before its first text (chat only)."""
    return b"".join(
        _event(
            _head(interaction, "chat.completion.chunk"),
            {
                "index": choice.index,
                "delta": {"role": "assistant", "content": ""},
                "logprobs": None,
                "finish_reason": None,
            },
            with_usage,
        )
        for choice in interaction.choices
    )


def part(interaction: Interaction, delta: Delta, kind: Kind, *, with_usage: bool) -> bytes:
    """The event of one Delta; nothing when it has nothing to show yet."""
    wants_logprobs = interaction.sampling.top_logprobs is not None and delta.logprobs
    if not (delta.text or delta.finish_reason or wants_logprobs):
        return b""
    choice = interaction.choices[delta.choice]
    shape: dict[str, Any] = {"index": delta.choice}
    if kind == "chat":
        shape["delta"] = {"content": delta.text} if delta.text else {}
    else:
        shape["text"] = delta.text
    shape["logprobs"] = _logprobs(delta.logprobs, interaction, kind)
    shape["finish_reason"] = _finish(choice) if delta.finish_reason else None
    head = _head(interaction, "chat.completion.chunk" if kind == "chat" else "text_completion")
    if delta.finish_reason:
        shape["tailrace"] = _account(interaction, choice)
        head["tailrace"] = _summary(interaction)
    return _event(head, shape, with_usage)


def closing(interaction: Interaction, kind: Kind) -> bytes:
    """The event with the usage, which has no choices (``stream_options.include_usage``)."""
    name = "chat.completion.chunk" if kind == "chat" else "text_completion"
    return encode({**_head(interaction, name), "choices": [], "usage": usage(interaction)})


def usage(interaction: Interaction) -> dict[str, int]:
    completion = interaction.completion_tokens()
    return {
        "prompt_tokens": interaction.prompt_tokens,
        "completion_tokens": completion,
        "total_tokens": interaction.prompt_tokens + completion,
    }


def encode(document: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + msgspec.json.encode(document) + b"\n\n"


def _head(interaction: Interaction, name: str) -> dict[str, Any]:
    return {
        "id": interaction.interaction_id,
        "object": name,
        "created": interaction.begun_ms // 1000,
        "model": interaction.name,
    }


def _event(head: dict[str, Any], choice: dict[str, Any], with_usage: bool) -> bytes:
    document = {**head, "choices": [choice]}
    if with_usage:
        document["usage"] = None
    return encode(document)


def _summary(interaction: Interaction) -> dict[str, Any]:
    return {"session_id": interaction.terms.session, "weight_versions": interaction.versions()}


def _account(interaction: Interaction, choice: Choice) -> dict[str, Any]:
    spans = choice.spans or []
    return {
        "weight_versions": [
            {"version": span.version, "start": span.start, "end": span.end} for span in spans
        ],
        "untrainable": interaction.untrainable(choice),
    }


def _finish(choice: Choice) -> str:
    return "length" if choice.finish_reason == "length" else "stop"


def _logprobs(
    logprobs: Sequence[Logprob], interaction: Interaction, kind: Kind
) -> dict[str, Any] | None:
    top = interaction.sampling.top_logprobs
    if top is None:
        return None
    entries = cast(Sequence[TokenLogprob], logprobs)
    if kind == "chat":
        shown = [
            {
                "token": entry.token,
                "logprob": entry.logprob,
                "bytes": entry.bytes,
                "top_logprobs": entry.top_logprobs[:top],
            }
            for entry in entries
        ]
        return {"content": shown, "refusal": None}
    return {
        "tokens": [entry.token for entry in entries],
        "token_logprobs": [entry.logprob for entry in entries],
        "top_logprobs": [{t.token: t.logprob for t in e.top_logprobs[:top]} for e in entries],
        "text_offset": [],
    }
