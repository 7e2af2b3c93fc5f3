"""An answer under way: from the engine's Deltas to records and server-sent events.

Whatever ends it (the engine, a failure, a client that leaves, the process), the Outputs of an
interaction are offered exactly once. Called by :mod:`services.gateway.app`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
import logging
from typing import TypeVar

import anyio
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from services.gateway import metrics, requests, shapes, spans
from services.gateway.answers import Delta, EngineFailed
from services.gateway.capture import Capture
from services.gateway.chat import Interaction
from services.gateway.errors import ApiError
from tailrace import topics
from tailrace.traces import Span

log = logging.getLogger(__name__)
T = TypeVar("T")
_UNWATCHED_S = 0.02


class ClientLeft(Exception):
    """Nobody is there to be answered."""


class Run:
    """An interaction under way: adds each Delta to it and offers its Outputs once, at its end."""

    def __init__(
        self,
        interaction: Interaction,
        deltas: AsyncGenerator[Delta],
        capture: Capture,
        now_ms: Callable[[], int],
        span: Span | None = None,
    ) -> None:
        self.interaction = interaction
        self._span = span
        self._deltas = deltas
        self._capture = capture
        self._now_ms = now_ms
        self._ended = False

    def __aiter__(self) -> Run:
        return self

    async def __anext__(self) -> Delta:
        try:
            delta = await anext(self._deltas)
            if not 0 <= delta.choice < len(self.interaction.choices):
                raise EngineFailed(502, "engine_garbled", f"engine: choice {delta.choice}")
        except StopAsyncIteration:
            self._end("done")
            raise
        except ApiError as error:
            reason = error.reason if isinstance(error, EngineFailed) else "engine_refused"
            self._end("failed" if isinstance(error, EngineFailed) else "refused", error=reason)
            raise
        self.interaction.add(delta, self._now_ms())
        return delta

    async def to_end(self) -> None:
        async for _ in self:
            pass

    async def aclose(self) -> None:
        """The client is gone, or everything is done. What is unfinished ends here."""
        self._end("left", left=True)
        with anyio.CancelScope(shield=True):
            await self._deltas.aclose()

    def _end(self, outcome: str, *, error: str | None = None, left: bool = False) -> None:
        if self._ended:
            return
        self._ended = True
        now_ms, interaction = self._now_ms(), self.interaction
        if left and all(choice.finish_reason for choice in interaction.choices):
            outcome = "done"
        model = interaction.prompt.model or ""
        for output in interaction.outputs(now_ms, error=error, left=left):
            if output.ttft_ms is not None:
                metrics.TTFT_S.labels(model).observe(output.ttft_ms / 1000)
            if output.untrainable:
                metrics.UNTRAINABLE.labels(output.untrainable).inc()
            self._capture.offer(topics.OUTPUTS, output, interaction.terms.traceparent)
        if self._span is not None:
            spans.end(self._span, interaction, outcome, error)
        metrics.REQUESTS.labels(outcome, model).inc()
        metrics.REQUEST_S.labels(model).observe((now_ms - interaction.begun_ms) / 1000)
        metrics.TOKENS.labels("input", model).inc(interaction.prompt_tokens)
        metrics.TOKENS.labels("output", model).inc(interaction.completion_tokens())


class EventStream(StreamingResponse):
    """Server-sent events of a run. Whatever happens to the client, the run ends with it."""

    def __init__(self, run: Run, events: AsyncIterator[bytes], headers: dict[str, str]) -> None:
        headers = headers | {"cache-control": "no-cache"}
        super().__init__(events, headers=headers, media_type="text/event-stream")
        self._run = run

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._run.aclose()


async def events(
    run: Run, delta: Delta | None, body: requests.Body, kind: shapes.Kind
) -> AsyncIterator[bytes]:
    interaction = run.interaction
    with_usage = bool(body.stream_options and body.stream_options.include_usage)
    try:
        if kind == "chat":
            yield shapes.opening(interaction, with_usage=with_usage)
        while delta is not None:
            event = shapes.part(interaction, delta, kind, with_usage=with_usage)
            if event:
                yield event
            delta = await anext(run, None)
    except ApiError as error:
        # The status is gone already; the official clients raise on an error object.
        log.warning("stream broke off id=%s error=%s", interaction.interaction_id, error)
        yield shapes.encode(error.body())
        return
    if with_usage:
        yield shapes.closing(interaction, kind)
    yield shapes.DONE


async def unless_left(request: Request, work: Awaitable[T]) -> T:
    """Await work unless the client leaves first. Raises ClientLeft; the work is cancelled then."""
    task = asyncio.current_task()
    assert task is not None
    left = False
    watcher: asyncio.Task[None] | None = None

    async def leaving() -> None:
        nonlocal left
        while (await request.receive())["type"] != "http.disconnect":
            pass
        left = True
        task.cancel()

    def watch() -> None:
        nonlocal watcher
        watcher = asyncio.create_task(leaving())

    # Most answers that come at once need no watcher, and each costs.
    timer = asyncio.get_running_loop().call_later(_UNWATCHED_S, watch)
    try:
        return await work
    except asyncio.CancelledError:
        if left and task.uncancel() == 0:
            raise ClientLeft from None
        raise
    finally:
        timer.cancel()
        if watcher is not None:
            watcher.cancel()
