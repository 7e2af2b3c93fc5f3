"""The routes, and the life of one request.

    body ─> caller, terms, sampling, token ids ─> Prompt ─> engine ─> Deltas ─┬─> answer
                                                                              └─> Outputs

Serving awaits nothing but the engine: records are offered to :mod:`services.gateway.capture`, which
never makes it wait. Feedback awaits its durability. Built by ``__main__`` and by tests.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
import logging
import time
from typing import Any, TypeVar

import msgspec
import prometheus_client
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from services.gateway import caller as callers
from services.gateway import errors, metrics, requests, sampling, shapes, spans
from services.gateway.adapters import Adapters
from services.gateway.capture import Capture
from services.gateway.chat import Interaction
from services.gateway.engine import Engine
from services.gateway.entrance import Entrance, Origins
from services.gateway.errors import ApiError
from services.gateway.fate import Fate
from services.gateway.inbox import Inbox
from services.gateway.run import ClientLeft, EventStream, Run, events, unless_left
from services.gateway.settings import Settings
from services.gateway.tokenizer import Tokenizer
from services.gateway.tokens import Tokens
from tailrace import ids, topics
from tailrace.errors import InvalidRecord
from tailrace.traces import Traces

log = logging.getLogger(__name__)
T = TypeVar("T")
_LARGE_BYTES = 16 * 1024
"""Longer texts are tokenised on another thread."""


class Gateway:
    """All routes over the parts that they need."""

    def __init__(
        self,
        settings: Settings,
        *,
        tokenizer: Tokenizer,
        engine: Engine,
        capture: Capture,
        fate: Fate,
        tokens: Tokens,
        traces: Traces | None = None,
        now_ms: Callable[[], int],
        step: Callable[[int], None] = lambda number: None,
    ) -> None:
        """``traces``: None for none. ``now_ms``: wall clock. ``step``: see Inbox."""
        self._settings = settings
        self._traces = traces
        self._tokenizer = tokenizer
        self._vocabulary = tokenizer.size()
        self._engine = engine
        self._adapters = Adapters(engine, model=settings.model, now_s=time.monotonic)
        self._capture = capture
        self._fate = fate
        self._now_ms = now_ms
        self._keys = callers.Keys(settings.keys, settings.graders)
        self._entrance = Entrance(
            self._keys, tokens, max_bytes=settings.max_body_bytes, now_ms=now_ms
        )
        self._inbox = Inbox(
            entrance=self._entrance,
            capture=capture,
            fate=fate,
            kinds=settings.metrics,
            max_bytes=settings.max_body_bytes,
            traces=traces,
            now_ms=now_ms,
            step=step,
        )
        self._created_s = now_ms() // 1000

    def app(self) -> Starlette:
        """The ASGI application; its lifespan starts and ends the capture."""
        return Starlette(
            routes=[
                Route("/v1/chat/completions", self.chat, methods=["POST"]),
                Route("/v1/completions", self.text, methods=["POST"]),
                Route("/v1/models", self.models, methods=["GET"]),
                Route("/v1/models/{name:path}", self.model, methods=["GET"]),
                Route("/v1/feedback", self._inbox.give, methods=["POST"]),
                Route("/v1/feedback/tokens", self._entrance.issue, methods=["POST"]),
                Route("/v1/feedback/{feedback_id}", self._inbox.look, methods=["GET"]),
                Route("/v1/feedback/{feedback_id}", self._inbox.retract, methods=["DELETE"]),
                Route("/healthz", self.healthy, methods=["GET"]),
                Route("/readyz", self.ready, methods=["GET"]),
                Route("/metrics", self.measure, methods=["GET"]),
            ],
            exception_handlers={
                ApiError: errors.on_api_error,
                InvalidRecord: errors.on_api_error,
                HTTPException: errors.on_not_found,
                Exception: errors.on_bug,
            },
            middleware=[Middleware(Origins, self._settings.origins, self._settings.cors_origins)]
            if self._settings.origins or self._settings.cors_origins
            else None,
            lifespan=self._life,
        )

    @asynccontextmanager
    async def _life(self, app: Starlette) -> AsyncIterator[None]:
        self._capture.start()
        try:
            yield
        finally:
            await self._capture.close(self._settings.ack_s + 2.0)
            await self._engine.close()
            await self._fate.close()
            if self._traces is not None:
                await asyncio.to_thread(self._traces.close)

    # -- answers

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        begun_s = time.perf_counter()
        caller = self._keys.caller(request)
        body = requests.decode(
            await requests.read(request, self._settings.max_body_bytes), requests.ChatBody
        )
        version = await self._adapters.find(body.model)
        asked = requests.plain(body)
        long = sum(len(message["content"]) for message in asked) > _LARGE_BYTES
        token_ids = await _perhaps_in_thread(long, lambda: self._tokenizer.chat(asked))
        return await self._answer(request, body, caller, version, asked, token_ids, "chat", begun_s)

    async def text(self, request: Request) -> Response:
        """POST /v1/completions."""
        begun_s = time.perf_counter()
        caller = self._keys.caller(request)
        body = requests.decode(
            await requests.read(request, self._settings.max_body_bytes), requests.TextBody
        )
        version = await self._adapters.find(body.model)
        asked = requests.prompt(body)
        if isinstance(asked, list):
            token_ids = asked
            if not all(0 <= token < self._vocabulary for token in token_ids):
                raise errors.invalid(f"token ids are below {self._vocabulary}", "prompt")
        else:
            text, long = asked, len(asked) > _LARGE_BYTES
            token_ids = await _perhaps_in_thread(long, lambda: self._tokenizer.text(text))
        return await self._answer(request, body, caller, version, asked, token_ids, "text", begun_s)

    async def _answer(
        self,
        request: Request,
        body: requests.Body,
        caller: callers.Caller,
        version: int | None,
        asked: list[dict[str, Any]] | str | list[int],
        token_ids: list[int],
        kind: shapes.Kind,
        begun_s: float,
    ) -> Response:
        settings, now_ms = self._settings, self._now_ms()
        how = sampling.read(body, vocabulary=self._vocabulary, max_choices=settings.max_choices)
        terms = callers.terms(
            request, body, caller, learn_default=settings.learn_default, now_ms=now_ms
        )
        if not token_ids:
            raise errors.invalid("the prompt has no tokens", "prompt")
        span = None
        if self._traces is not None:
            span = spans.begin(self._traces, kind, settings.model, terms.traceparent)
            terms = msgspec.structs.replace(terms, traceparent=span.traceparent)
        interaction = Interaction(
            interaction_id=ids.new_interaction(terms.session, now_ms),
            caller=caller,
            terms=terms,
            model=settings.model,
            name=self._adapters.name(version),
            version=version,
            engine=settings.engine,
            asked=asked,
            token_ids=token_ids,
            sampling=how,
            logprobs_mode=settings.logprobs_mode,
            max_record_bytes=settings.max_record_bytes,
            streamed=bool(body.stream),
            now_ms=now_ms,
        )
        headers = {
            "x-tailrace-interaction-id": interaction.interaction_id,
            "x-tailrace-session": terms.session,
        }
        if request.headers.get("x-tailrace-feedback-token", "").lower() in callers.TRUE:
            headers["x-tailrace-feedback-token"] = self._entrance.token(
                interaction.interaction_id, caller, terms.user
            )
        self._capture.offer(topics.PROMPTS, interaction.prompt, terms.traceparent)
        metrics.OVERHEAD_S.observe(time.perf_counter() - begun_s)
        deltas = self._engine.generate(
            token_ids,
            how.engine,
            stream=bool(body.stream),
            shown=how.top_logprobs is not None,
            model=None if version is None else interaction.name,
            # An engine that has no collector complains of every trace.
            traceparent=None if span is None else span.traceparent,
        )
        if version is not None:
            deltas = self._adapters.answer(version, deltas)
        run = Run(interaction, deltas, self._capture, self._now_ms, span)
        try:
            if body.stream:
                first = await unless_left(request, anext(run, None))
                return EventStream(run, events(run, first, body, kind), headers)
            await unless_left(request, run.to_end())
        except BaseException as error:
            await run.aclose()
            if isinstance(error, ClientLeft):
                return Response(status_code=499)
            if isinstance(error, ApiError):
                error.headers |= headers
            raise
        versions = ",".join(map(str, interaction.versions()))
        headers["x-tailrace-weight-versions"] = versions
        return _json(shapes.whole(interaction, kind), 200, headers)

    # -- models

    async def models(self, request: Request) -> Response:
        """GET /v1/models: the model, and the adapters that are loaded."""
        self._keys.caller(request)
        versions = [None, *await self._adapters.loaded()]
        data = [self._model_object(self._adapters.name(version)) for version in versions]
        return _json({"object": "list", "data": data})

    async def model(self, request: Request) -> Response:
        """GET /v1/models/{name}."""
        self._keys.caller(request)
        name = request.path_params["name"]
        await self._adapters.find(name)
        return _json(self._model_object(name))

    def _model_object(self, name: str) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": self._created_s,
            "owned_by": "tailrace",
        }

    # -- the process

    async def healthy(self, request: Request) -> Response:
        """GET /healthz: the process runs."""
        return Response("ok\n", media_type="text/plain")

    async def ready(self, request: Request) -> Response:
        """GET /readyz: the engine can serve. Kafka and Redis are not needed for that."""
        reason = await self._engine.health()
        document = {"ready": reason is None, "reason": reason, "records": self._capture.state()}
        return _json(document, 200 if reason is None else 503)

    async def measure(self, request: Request) -> Response:
        """GET /metrics."""
        return Response(
            prometheus_client.generate_latest(), media_type=prometheus_client.CONTENT_TYPE_LATEST
        )


async def _perhaps_in_thread(long: bool, work: Callable[[], T]) -> T:
    return await asyncio.to_thread(work) if long else work()


def _json(document: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(
        msgspec.json.encode(document), status, headers=headers, media_type="application/json"
    )
