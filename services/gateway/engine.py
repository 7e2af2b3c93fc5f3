"""The one place that knows vLLM's HTTP API for generation: ``POST /inference/v1/generate``.

In: prompt token ids and ``sampling_params``. Out: :class:`Delta`, the engine's own token ids, text,
logprob of each token, and with the end of a choice the weight version of each of its tokens.
A plain call gives one Delta a choice, a streamed one many; what follows is the same for both.

vLLM may be swapping weights (requests wait inside it) or restarting (nobody listens). A request is
never refused for that: until its first token it waits for the engine up to ``wait_s``. Once the
engine took a request and broke down over it, it is tried only once more, for the request itself may
be what breaks it. Read against vLLM 0.32 (entrypoints/scale_out/token_in_token_out/protocol.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
import logging
from typing import Any, Generic, TypeVar

import msgspec

from services.gateway import metrics
from services.gateway.errors import ApiError
from services.gateway.upstream import Answer, NoConnection, Silent, Upstream, UpstreamError
from tailrace.events import VersionSpan

log = logging.getLogger(__name__)
_ROUTE = "/inference/v1/generate"
_HEALTH_S = 2.0
_NO_LOGPROB = -9999.0
"""What vLLM writes where a logprob is missing, NaN or minus infinity."""
_BREAKDOWNS = 2
"""How often a request may be taken by the engine without an answer."""
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


class _Broken(Exception):
    """One attempt failed before its first token. ``taken``: the engine had the request."""

    def __init__(self, reason: str, detail: str, *, taken: bool) -> None:
        super().__init__(detail)
        self.reason = reason
        self.taken = taken


class Engine:
    """One vLLM server."""

    def __init__(
        self,
        url: str,
        *,
        wait_s: float,
        silence_s: float,
        now_s: Callable[[], float],
        pause: Callable[[float], Any] = asyncio.sleep,
    ) -> None:
        """``now_s`` is a monotonic clock, ``pause`` how to wait between two attempts."""
        self._upstream = Upstream(url, silence_s=silence_s)
        self._wait_s = wait_s
        self._now_s = now_s
        self._pause = pause

    async def generate(
        self, token_ids: Sequence[int], sampling: dict[str, Any], *, stream: bool, shown: bool
    ) -> AsyncGenerator[Delta]:
        """The answer, as it comes. Close the iterator to make the engine stop.

        ``shown``: the client wants to see logprobs, so each comes with its token.

        Raises EngineFailed, or ApiError (400) when the engine refuses the request as such.
        """
        body = msgspec.json.encode(
            {
                "token_ids": token_ids,
                "sampling_params": sampling,
                "output_mode": "text",
                "stream": stream,
            }
        )
        deadline = self._now_s() + self._wait_s
        taken, wait_s = 0, 0.05
        while True:
            begun = False
            try:
                async with aclosing(self._attempt(body, stream, shown)) as deltas:
                    async for delta in deltas:
                        begun = True
                        yield delta
                return
            except _Broken as error:
                taken += error.taken
                if begun:
                    raise EngineFailed(502, "engine_broke_off", f"engine: {error}") from None
                if taken >= _BREAKDOWNS:
                    raise EngineFailed(502, error.reason, f"engine: {error}") from None
                if self._now_s() + wait_s > deadline:
                    raise EngineFailed(503, "engine_unavailable", f"engine: {error}") from None
                metrics.ENGINE_RETRIES.labels(error.reason).inc()
                if wait_s == 0.05:
                    log.warning("waiting for the engine reason=%s detail=%s", error.reason, error)
            await self._pause(wait_s)
            wait_s = min(wait_s * 2, 1.0)

    async def _attempt(self, body: bytes, stream: bool, shown: bool) -> AsyncGenerator[Delta]:
        ended = False
        try:
            async with self._upstream.ask("POST", _ROUTE, body) as answer:
                if answer.status != 200:
                    raise _refusal(answer.status, await answer.body())
                if stream:
                    async with aclosing(_events(answer)) as parts:
                        async for part in parts:
                            for delta in _deltas(part, shown):
                                yield delta
                else:
                    for delta in _deltas(await answer.body(), shown):
                        yield delta
                ended = True
        except NoConnection as error:
            raise _Broken("no_connection", str(error), taken=False) from None
        except Silent as error:
            raise _Broken("silent", str(error), taken=True) from None
        except UpstreamError as error:
            if not ended:
                raise _Broken("broke_off", str(error), taken=True) from None

    async def health(self) -> str | None:
        """None when the engine can serve, else why not."""
        try:
            async with asyncio.timeout(_HEALTH_S), self._upstream.ask("GET", "/health") as answer:
                status = answer.status
                await answer.body()
        except (UpstreamError, TimeoutError) as error:
            return f"engine: {error!r}"
        return None if status == 200 else f"engine: status {status}"

    async def close(self) -> None:
        self._upstream.close()


async def _events(answer: Answer) -> AsyncGenerator[bytes]:
    """The data of each server-sent event. Raises _Broken when the stream ends before [DONE]."""
    rest = b""
    async for piece in answer.parts():
        *events, rest = (rest + piece).split(b"\n\n")
        for event in events:
            data = event.removeprefix(b"data:").strip()
            if data == b"[DONE]":
                # What is left of the answer, so that the connection may be used again.
                async for _ in answer.parts():
                    pass
                return
            if data:
                yield data
    raise _Broken("broke_off", "the stream ended before its end", taken=True)


def _refusal(status: int, body: bytes) -> Exception:
    try:
        error = _bare.decode(body).error or {}
    except msgspec.DecodeError:
        error = {}
    message = str(error.get("message") or body[:500].decode(errors="replace"))
    if status in (400, 422):
        return ApiError(400, message, code="engine_refused", param=error.get("param"))
    if status in _BUSY:
        return _Broken("busy", f"status {status}: {message}", taken=False)
    return _Broken("engine_error", f"status {status}: {message}", taken=True)


def _deltas(data: bytes, shown: bool) -> list[Delta]:
    try:
        chunk: _Chunk[Any] = (_full if shown else _bare).decode(data)
    except msgspec.DecodeError as error:
        raise EngineFailed(502, "engine_garbled", f"engine: {error}") from None
    if chunk.error is not None:
        raise _Broken("engine_error", str(chunk.error.get("message")), taken=True)
    deltas = []
    for choice in chunk.choices:
        if choice.finish_reason in ("abort", "error"):
            raise _Broken("aborted", f"the engine ended it: {choice.finish_reason}", taken=True)
        deltas.append(
            Delta(
                choice=choice.index,
                text=choice.text,
                token_ids=choice.token_ids or [],
                logprobs=(choice.logprobs.content if choice.logprobs else None) or [],
                finish_reason=choice.finish_reason,
                spans=_spans(choice.weight_versions),
            )
        )
    return deltas


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
