"""The routes of feedback: give it, take it back, ask what became of it.

A 202 is a promise: the record is on Kafka or fsynced on disk. Redis is asked whether an id was seen
with another body, and otherwise never needed. Called by :mod:`services.gateway.app`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response

from services.gateway import feedback, requests, spans
from services.gateway.caller import traceparent
from services.gateway.capture import Capture
from services.gateway.entrance import Entrance
from services.gateway.errors import ApiError
from services.gateway.event import SpoolFull
from services.gateway.fate import Fate, Unavailable
from tailrace import ids
from tailrace.errors import InvalidRecord
from tailrace.events import Feedback
from tailrace.feedback_json import same
from tailrace.traces import Traces

_RETRY = {"retry-after": "5"}


class Inbox:
    """What takes feedback in."""

    def __init__(
        self,
        *,
        entrance: Entrance,
        capture: Capture,
        fate: Fate,
        kinds: Mapping[str, str],
        max_bytes: int,
        traces: Traces | None,
        now_ms: Callable[[], int],
        step: Callable[[int], None],
    ) -> None:
        """``kinds``: metric to kind. ``traces``: None for none. ``step`` is told the numbered
        points at which a test may end the process: 2 feedback is durable, not answered; 3 it is
        answered."""
        self._entrance = entrance
        self._capture = capture
        self._fate = fate
        self._kinds = kinds
        self._max_bytes = max_bytes
        self._traces = traces
        self._now_ms = now_ms
        self._step = step

    async def give(self, request: Request) -> Response:
        """POST /v1/feedback: 202 when Kafka or the disk has it."""
        caller = self._entrance.caller(request)
        records, many = feedback.read(
            await requests.read(request, self._max_bytes),
            caller,
            user=request.headers.get("x-tailrace-user"),
            kinds=self._kinds,
            now_ms=self._now_ms(),
        )
        with spans.feedback(self._traces, records, traceparent(request)) as trace:
            await self._keep(records, trace)
        answer: Any = [{"feedback_id": record.feedback_id} for record in records]
        return self._accepted(answer if many else answer[0])

    async def retract(self, request: Request) -> Response:
        """DELETE /v1/feedback/{id}: a feedback that takes another back."""
        caller = self._entrance.caller(request)
        record = feedback.retraction(
            request.path_params["feedback_id"],
            caller,
            user=request.headers.get("x-tailrace-user"),
            now_ms=self._now_ms(),
        )
        with spans.feedback(self._traces, [record], traceparent(request)) as trace:
            await self._keep([record], trace)
        return self._accepted({"feedback_id": record.feedback_id, "retracts": record.replaces})

    async def _keep(self, records: list[Feedback], trace: str | None) -> None:
        """Make it durable. Raises ApiError (409 for an id with another body, 503 when full), or
        InvalidRecord."""
        said: dict[str, Feedback] = {}
        for record in records:
            first = said.setdefault(record.feedback_id, record)
            if first is not record and same(first) != same(record):
                raise _conflict(record)
        claims = dict(zip(said, await self._fate.claim_all(list(said.values())), strict=True))
        claimed = [said[name] for name, claim in claims.items() if claim == "new"]
        fresh = [said[name] for name, claim in claims.items() if claim != "accepted"]
        try:
            for name, claim in claims.items():
                if claim == "conflict":
                    raise _conflict(said[name])
            if not fresh:
                return
            await self._capture.keep(fresh, trace)
        except SpoolFull as error:
            await self._fate.release(claimed)
            raise ApiError(
                503, f"feedback cannot be kept now: {error}", code="spool_full", headers=_RETRY
            ) from None
        except (ApiError, InvalidRecord):
            await self._fate.release(claimed)
            raise
        self._step(2)
        await self._fate.accepted(fresh, self._now_ms())

    def _accepted(self, answer: Any) -> Response:
        async def answered() -> None:
            self._step(3)

        body = msgspec.json.encode(answer)
        return Response(
            body, 202, media_type="application/json", background=BackgroundTask(answered)
        )

    async def look(self, request: Request) -> Response:
        """GET /v1/feedback/{id}: what became of it."""
        caller = self._entrance.caller(request)
        feedback_id = feedback.claim(request.path_params["feedback_id"], caller.tenant)
        subject = ids.subject_of(feedback_id)
        if caller.grant is not None and subject != caller.grant.interaction:
            raise ApiError(403, "the token is for another interaction", code="token_subject")
        try:
            known = await self._fate.look(feedback_id)
        except Unavailable:
            raise ApiError(
                503, "the view of feedback needs Redis", code="no_redis", headers=_RETRY
            ) from None
        if known is None:
            raise ApiError(404, f"nothing is known of {feedback_id!r}", code="feedback_not_found")
        return Response(msgspec.json.encode(known), media_type="application/json")


def _conflict(record: Feedback) -> ApiError:
    return ApiError(
        409,
        f"feedback {record.feedback_id!r} was given before, with another body",
        code="conflict",
        param="feedback_id",
    )
