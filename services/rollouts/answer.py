"""What vLLM answered to one request, and whether it can be trained on. Pure.

Made by :mod:`.engine`. Read against vLLM 0.32
(entrypoints/scale_out/token_in_token_out/protocol.py).
"""

from __future__ import annotations

from typing import Any

import msgspec

from tailrace.events import VersionSpan

_NO_LOGPROB = -9999.0
"""What vLLM writes where a logprob is missing, NaN or minus infinity."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One sample, with the engine's own tokens."""

    engine: str
    text: str
    token_ids: list[int]
    prompt_token_ids: list[int]
    logprobs: list[float]
    """Of each token, in nats, under the distribution that it was drawn from."""
    finish_reason: str | None
    spans: list[VersionSpan]
    began_ms: int
    ended_ms: int
    traceparent: str = ""
    """Of the request; empty: there are no traces."""

    def fault(self) -> str | None:
        """Why it cannot be trained on, in the gateway's words; None: it can."""
        if not self.token_ids:
            return "empty"
        real = all(_NO_LOGPROB < logprob < 1e-3 for logprob in self.logprobs)
        if len(self.logprobs) != len(self.token_ids) or not real:
            return "unaccounted_tokens"
        if not self.spans or any(span.version is None for span in self.spans):
            return "unknown_version"
        end = 0
        for span in self.spans:
            if span.start != end or span.end < span.start:
                return "unaccounted_tokens"
            end = span.end
        return None if end == len(self.token_ids) else "unaccounted_tokens"


class _Logprob(msgspec.Struct):
    logprob: float = _NO_LOGPROB


class _Logprobs(msgspec.Struct):
    content: list[_Logprob] | None = None


class _Span(msgspec.Struct):
    version: str
    start: int
    end: int


class _Choice(msgspec.Struct):
    text: str = ""
    token_ids: list[int] | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None
    weight_versions: list[_Span] | None = None


class _Body(msgspec.Struct):
    choices: list[_Choice]


_decoder = msgspec.json.Decoder(_Body)


def read(body: bytes, **known: Any) -> Answer:
    """The answer in vLLM's. Raises ValueError (``garbled: …``, ``ended: …``) when there is none."""
    try:
        choices = _decoder.decode(body).choices
    except msgspec.DecodeError as error:
        raise ValueError(f"garbled: {error}") from None
    if len(choices) != 1:
        raise ValueError(f"garbled: {len(choices)} choices")
    choice = choices[0]
    if choice.finish_reason in (None, "abort", "error"):
        raise ValueError(f"ended: {choice.finish_reason}")
    entries = (choice.logprobs.content if choice.logprobs else None) or []
    return Answer(
        text=choice.text,
        token_ids=choice.token_ids or [],
        logprobs=[entry.logprob for entry in entries],
        finish_reason=choice.finish_reason,
        spans=[
            VersionSpan(version=_version(span.version), start=span.start, end=span.end)
            for span in choice.weight_versions or []
        ],
        **known,
    )


def _version(label: str) -> int | None:
    # "default" until the engine process has loaded a version that it can vouch for.
    return int(label) if label.isascii() and label.isdigit() and len(label) < 19 else None
