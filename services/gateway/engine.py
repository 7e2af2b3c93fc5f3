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
from typing import Any

import msgspec

from services.gateway import answers, metrics
from services.gateway.answers import Broken, Delta, EngineFailed
from services.gateway.upstream import Answer, NoConnection, Silent, Upstream, UpstreamError

log = logging.getLogger(__name__)
_ROUTE = "/inference/v1/generate"
_MODELS = "/v1/models"
_HEALTH_S = 2.0
_BREAKDOWNS = 2
"""How often a request may be taken by the engine without an answer."""


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
        self,
        token_ids: Sequence[int],
        sampling: dict[str, Any],
        *,
        stream: bool,
        shown: bool,
        model: str | None = None,
        traceparent: str | None = None,
    ) -> AsyncGenerator[Delta]:
        """The answer, as it comes. Close the iterator to make the engine stop.

        ``shown``: the client wants to see logprobs, so each comes with its token. ``model``: one
        of :meth:`models`; None: the model that it was started with. ``traceparent``: of what its
        own span is to be a part.

        Raises EngineFailed, or ApiError when the engine refuses the request as such (400) or does
        not know the model (404).
        """
        asked = {
            "token_ids": token_ids,
            "sampling_params": sampling,
            "output_mode": "text",
            "stream": stream,
        }
        body = msgspec.json.encode(asked if model is None else asked | {"model": model})
        deadline = self._now_s() + self._wait_s
        taken, wait_s = 0, 0.05
        while True:
            begun = False
            try:
                async with aclosing(self._attempt(body, stream, shown, traceparent)) as deltas:
                    async for delta in deltas:
                        begun = True
                        yield delta
                return
            except Broken as error:
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

    async def _attempt(
        self, body: bytes, stream: bool, shown: bool, traceparent: str | None
    ) -> AsyncGenerator[Delta]:
        ended = False
        try:
            async with self._upstream.ask("POST", _ROUTE, body, traceparent) as answer:
                if answer.status != 200:
                    raise answers.refusal(answer.status, await answer.body())
                if stream:
                    async with aclosing(_events(answer)) as parts:
                        async for part in parts:
                            for delta in answers.deltas(part, shown):
                                yield delta
                else:
                    for delta in answers.deltas(await answer.body(), shown):
                        yield delta
                ended = True
        except NoConnection as error:
            raise Broken("no_connection", str(error), taken=False) from None
        except Silent as error:
            raise Broken("silent", str(error), taken=True) from None
        except UpstreamError as error:
            if not ended:
                raise Broken("broke_off", str(error), taken=True) from None

    async def health(self) -> str | None:
        """None when the engine can serve, else why not."""
        try:
            await self._get("/health")
        except EngineFailed as error:
            return error.message
        return None

    async def models(self) -> list[str]:
        """Names under which it serves, those of adapters included. Raises EngineFailed."""
        return answers.models(await self._get(_MODELS))

    async def _get(self, path: str) -> bytes:
        try:
            async with asyncio.timeout(_HEALTH_S), self._upstream.ask("GET", path) as answer:
                status, body = answer.status, await answer.body()
        except (UpstreamError, TimeoutError) as error:
            raise EngineFailed(503, "engine_unavailable", f"engine: {error!r}") from None
        if status != 200:
            raise EngineFailed(502, "engine_error", f"engine: status {status}")
        return body

    async def close(self) -> None:
        self._upstream.close()


async def _events(answer: Answer) -> AsyncGenerator[bytes]:
    """The data of each server-sent event. Raises Broken when the stream ends before [DONE]."""
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
    raise Broken("broke_off", "the stream ended before its end", taken=True)
