"""What vLLM's answers mean: Deltas, refusals, breakdowns. Pure.

In: the bytes of an answer, whole or of one event. Out: :class:`Delta`, or the exception that says
what became of the request. Read against vLLM 0.32
(entrypoints/scale_out/token_in_token_out/protocol.py). Called by :mod:`services.gateway.engine`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import msgspec

from services.gateway.errors import ApiError
from tailrace.events import VersionSpan

_NO_LOGPROB = -9999.0
"""What vLLM writes where a logprob is missing, NaN or minus infinity."""
_BUSY = (429, 502, 503, 504)


class Logprob(msgspec.Struct):
    """The log-probability (nats) of a token: all that the records need of it."""

    logprob: float = _NO_LOGPROB


class Alternative(Logprob):
    """A token and its log-probability, as the OpenAI API shows it."""

    token: str = ""
    bytes: list[int] | None = None


class TokenLogprob(Alternative):
    """A sampled token, with its alternatives, most likely first after the token itself."""

    top_logprobs: list[Alternative] = []


L = TypeVar("L", bound=Logprob)


class _Logprobs(msgspec.Struct, Generic[L]):
    content: list[L] | None = None


class _Span(msgspec.Struct):
    version: str
    start: int
    end: int


class _Choice(msgspec.Struct, Generic[L]):
    index: int
    text: str = ""
    token_ids: list[int] | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    logprobs: _Logprobs[L] | None = None
    weight_versions: list[_Span] | None = None


class _Chunk(msgspec.Struct, Generic[L]):
    choices: list[_Choice[L]] = []
    error: dict[str, Any] | None = None


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model]


_bare = msgspec.json.Decoder(_Chunk[Logprob])
"""Most of an answer are the names of its tokens: passed over where nobody asked for them."""
_full = msgspec.json.Decoder(_Chunk[TokenLogprob])


class Delta(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one choice since the last Delta of that choice."""

    choice: int
    text: str
    token_ids: list[int]
    logprobs: Sequence[Logprob]
    """TokenLogprobs where they are to be shown."""
    finish_reason: str | None
    spans: list[VersionSpan] | None
    """With the end of a choice: over all its tokens. None before, or when the engine gave none."""


class EngineFailed(ApiError):
    """The engine could not answer (502), or nobody did in time (503). ``reason`` goes into
    Output.error."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        headers = {"retry-after": "5"} if status == 503 else {}
        super().__init__(status, message, code=reason, headers=headers)
        self.reason = reason


class Broken(Exception):
    """One attempt failed before its first token. ``taken``: the engine had the request."""

    def __init__(self, reason: str, detail: str, *, taken: bool) -> None:
        super().__init__(detail)
        self.reason = reason
        self.taken = taken


def refusal(status: int, body: bytes) -> Exception:
    """What an answer with another status than 200 means."""
    try:
        error = _bare.decode(body).error or {}
    except msgspec.DecodeError:
        error = {}
    message = str(error.get("message") or body[:500].decode(errors="replace"))
    if status in (400, 422):
        return ApiError(400, message, code="engine_refused", param=error.get("param"))
    if status == 404 and error.get("param") == "model":
        return ApiError(404, message, code="model_not_found", param="model")
    if status in _BUSY:
        return Broken("busy", f"status {status}: {message}", taken=False)
    return Broken("engine_error", f"status {status}: {message}", taken=True)


def deltas(data: bytes, shown: bool) -> list[Delta]:
    """The Deltas of an answer or event; ``shown``: with the names of the tokens.

    Raises EngineFailed when it is none, Broken when it says that the engine gave up.
    """
    try:
        chunk: _Chunk[Any] = (_full if shown else _bare).decode(data)
    except msgspec.DecodeError as error:
        raise EngineFailed(502, "engine_garbled", f"engine: {error}") from None
    if chunk.error is not None:
        raise Broken("engine_error", str(chunk.error.get("message")), taken=True)
    found = []
    for choice in chunk.choices:
        if choice.finish_reason in ("abort", "error"):
            raise Broken("aborted", f"the engine ended it: {choice.finish_reason}", taken=True)
        found.append(
            Delta(
                choice=choice.index,
                text=choice.text,
                token_ids=choice.token_ids or [],
                logprobs=(choice.logprobs.content if choice.logprobs else None) or [],
                finish_reason=choice.finish_reason,
                spans=_spans(choice.weight_versions),
            )
        )
    return found


def models(data: bytes) -> list[str]:
    """The names in a list of models. Raises EngineFailed."""
    try:
        return [model.id for model in msgspec.json.decode(data, type=_Models).data]
    except msgspec.DecodeError as error:
        raise EngineFailed(502, "engine_garbled", f"engine: {error}") from None


def _spans(spans: list[_Span] | None) -> list[VersionSpan] | None:
    if spans is None:
        return None
    return [VersionSpan(version=_version(s.version), start=s.start, end=s.end) for s in spans]


def _version(label: str) -> int | None:
    # "default" until the engine process has loaded a version that it can vouch for.
    return int(label) if label.isascii() and label.isdigit() and len(label) < 19 else None


def sampled(entry: Logprob) -> bool:
    """Whether a token's log-probability is a real one."""
    return _NO_LOGPROB < entry.logprob < 1e-3
