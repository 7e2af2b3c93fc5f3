"""A stand-in for vLLM's generate route: its shapes (vLLM 0.32), answers that a test chooses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
import json
import socket
import threading
import time
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
import uvicorn


class FakeVllm:
    """Answers ``tokens`` (id, text, logprob) one after the other; what it was asked is kept."""

    def __init__(self) -> None:
        self.tokens: list[tuple[int, str, float]] = [
            (11, "The", -0.5),
            (12, " river", -1.25),
            (13, " runs", -0.125),
            (2, "", -0.0625),
        ]
        self.spans: list[dict[str, Any]] | None = [{"version": "7", "start": 0, "end": 4}]
        self.models = ["smollm2-135m-instruct"]
        """Names under which it serves, those of adapters included."""
        self.finish = "stop"
        self.asked: list[dict[str, Any]] = []
        self.traceparents: list[str | None] = []
        self.refuse: list[tuple[int, str]] = []
        """Statuses (and messages) of the next requests."""
        self.break_after: int | None = None
        """Close the connection after so many streamed tokens."""
        self.gate: threading.Event | None = None
        """The first token of a request waits for it."""
        self.left = threading.Event()
        """Set when a client went away before its end."""
        self.app = Starlette(
            routes=[
                Route("/inference/v1/generate", self.generate, methods=["POST"]),
                Route("/v1/models", self.list, methods=["GET"]),
                Route("/health", lambda request: Response(), methods=["GET"]),
            ]
        )

    async def list(self, request: Request) -> Response:
        data = [{"id": name, "object": "model", "parent": None} for name in self.models]
        return JSONResponse({"object": "list", "data": data})

    async def generate(self, request: Request) -> Response:
        body = await request.json()
        self.asked.append(body)
        self.traceparents.append(request.headers.get("traceparent"))
        if body.get("model", self.models[0]) not in self.models:
            message = f"The model `{body['model']}` does not exist."
            error = {"message": message, "type": "NotFoundError", "param": "model", "code": 404}
            return JSONResponse({"error": error}, 404)
        if self.refuse:
            status, message = self.refuse.pop(0)
            error = {"message": message, "type": "BadRequestError", "param": None, "code": status}
            return JSONResponse({"error": error}, status)
        if body["stream"]:
            return StreamingResponse(self.stream(body), media_type="text/event-stream")
        await self.wait()
        if await request.is_disconnected():
            self.left.set()
        n = body["sampling_params"]["n"]
        choices = [self.choice(body, n, 0, len(self.tokens), i) for i in range(n)]
        return JSONResponse({"request_id": "x", "choices": choices})

    async def wait(self) -> None:
        while self.gate is not None and not self.gate.is_set():
            await asyncio.sleep(0.005)

    async def stream(self, body: dict[str, Any]) -> AsyncIterator[str]:
        done = False
        try:
            for at in range(len(self.tokens)):
                if at == 1:
                    await self.wait()
                if at == self.break_after:
                    done = True
                    raise RuntimeError("broken off by the test")
                for index in range(body["sampling_params"]["n"]):
                    choices = [self.choice(body, 1, at, at + 1, index)]
                    yield f"data: {json.dumps({'request_id': 'x', 'choices': choices})}\n\n"
            yield "data: [DONE]\n\n"
            done = True
        finally:
            if not done:
                self.left.set()

    def choice(
        self, body: dict[str, Any], n: int, start: int, end: int, index: int
    ) -> dict[str, Any]:
        last = end == len(self.tokens)
        tokens = self.tokens[start:end]
        top = body["sampling_params"]["logprobs"]
        entries = [
            {
                "token": text,
                "logprob": logprob,
                "bytes": list(text.encode()),
                "top_logprobs": [
                    {"token": f"{text}{k}", "logprob": logprob - k, "bytes": None}
                    for k in range(max(top, 1))
                ],
            }
            for _, text, logprob in tokens
        ]
        return {
            "index": index,
            "text": "".join(text for _, text, _ in tokens),
            "token_ids": [token for token, _, _ in tokens],
            "logprobs": {"content": entries},
            "finish_reason": self.finish if last else None,
            "stop_reason": None,
            "routed_experts": None,
            "sampling_mask": None,
            "weight_versions": self.spans if last else None,
        }


class Served:
    """An ASGI application on a loopback port, in a thread of its own."""

    def __init__(self, app: Any, port: int = 0, lifespan: Any = "auto") -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(("127.0.0.1", port))
        self.port = self.socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        config = uvicorn.Config(
            app, log_config=None, timeout_graceful_shutdown=5, lifespan=lifespan
        )
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(
            target=self.server.run, kwargs={"sockets": [self.socket]}, daemon=True
        )
        self.thread.start()
        wait_until(lambda: self.server.started, "the server")

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(20)
        self.socket.close()


def wait_until(condition: Any, what: str, timeout_s: float = 20.0) -> None:
    """Poll until true. Raises TimeoutError."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(0.005)
