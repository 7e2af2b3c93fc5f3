"""The guard before vLLM's routes: plain serving for all, everything else for the engine process.

vLLM's admin and development routes share its port and have no keys of their own. This ASGI
middleware (``--middleware tailrace.plugins.admin.Guard``) lets a request through when its path is
on the short list of serving routes, or when its ``x-tailrace-admin`` header equals the
environment's ``TAILRACE_ENGINE_ADMIN_TOKEN``. A route that a later vLLM adds is closed until
somebody lists it; without a token in the environment nothing but serving is reachable.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
import hmac
import json
import os
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

HEADER = b"x-tailrace-admin"
TOKEN_VARIABLE = "TAILRACE_ENGINE_ADMIN_TOKEN"
OPEN = frozenset(
    {
        "/health",
        "/ping",
        "/version",
        "/metrics",
        "/load",
        "/tokenize",
        "/detokenize",
        "/v1/models",
        "/v1/completions",
        "/v1/completions/render",
        "/v1/completions/derender",
        "/v1/chat/completions",
        "/v1/chat/completions/render",
        "/v1/chat/completions/derender",
        "/inference/v1/generate",
    }
)
"""Exact paths of plain serving."""


class Guard:
    """ASGI middleware; vLLM constructs it with the application as only argument."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._token = os.environ.get(TOKEN_VARIABLE, "").encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or answer 403 (close 1008 for a web socket)."""
        if scope["type"] == "lifespan" or self._may(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await _forbid(send)

    def _may(self, scope: Scope) -> bool:
        if scope["type"] == "http" and scope["path"] in OPEN:
            return True
        given = [value for name, value in scope["headers"] if name.lower() == HEADER]
        return bool(self._token) and len(given) == 1 and hmac.compare_digest(given[0], self._token)


async def _forbid(send: Send) -> None:
    error = {
        "message": "this route is the engine process's own",
        "type": "permission_error",
        "param": None,
        "code": "admin_only",
    }
    body = json.dumps({"error": error}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})
