"""A stand-in for vLLM where the real one is too slow: metrics, tokens, answers that a test chooses.

It counts what is in flight as vLLM does, with ``live`` requests of others beside ours.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route


class FakeEngine:
    """Answers ``texts`` in turn; what it was asked is kept."""

    def __init__(self) -> None:
        self.texts = ["4", "5"]
        self.version = "7"
        self.live, self.waiting = 0, 0
        """Requests of others: running, and in the queue."""
        self.statuses: list[int] = []
        """Of the next requests."""
        self.gate = threading.Event()
        self.gate.set()
        self.asked: list[dict[str, Any]] = []
        self.traceparents: list[str | None] = []
        self.at_once, self.most_at_once, self.left = 0, 0, 0
        self._numbers = itertools.count()
        self.app = Starlette(
            routes=[
                Route("/metrics", self.metrics),
                Route("/tokenize", self.tokenize, methods=["POST"]),
                Route("/inference/v1/generate", self.generate, methods=["POST"]),
            ]
        )

    async def metrics(self, request: Request) -> Response:
        running = self.live + self.at_once
        return PlainTextResponse(
            f'vllm:num_requests_running{{engine="0"}} {float(running)}\n'
            f'vllm:num_requests_waiting{{engine="0"}} {float(self.waiting)}\n'
        )

    async def tokenize(self, request: Request) -> Response:
        body = await request.json()
        return JSONResponse({"count": 3, "tokens": [1, 5, 6 + ("prompt" in body)]})

    async def generate(self, request: Request) -> Response:
        self.asked.append(await request.json())
        self.traceparents.append(request.headers.get("traceparent"))
        if self.statuses:
            return PlainTextResponse("no", self.statuses.pop(0))
        text = self.texts[next(self._numbers) % len(self.texts)]
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            while not self.gate.is_set():
                if await request.is_disconnected():
                    self.left += 1
                    return Response()
                await asyncio.sleep(0.005)
            await asyncio.sleep(0)
        finally:
            self.at_once -= 1
        entries = [{"token": "x", "logprob": -0.5, "top_logprobs": []} for _ in range(3)]
        choice = {
            "index": 0,
            "text": text,
            "token_ids": [11, 12, 2],
            "finish_reason": "stop",
            "logprobs": {"content": entries},
            "weight_versions": [{"version": self.version, "start": 0, "end": 3}],
        }
        return JSONResponse({"request_id": "x", "choices": [choice]})
