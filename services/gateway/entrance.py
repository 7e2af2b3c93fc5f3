"""Who may give feedback: the holder of an API key, or a page with a browser token.

In: a request. Out: a Caller, with the Grant of the token where it came by one; and the tokens
themselves, for callers with a key. Called by :mod:`services.gateway.inbox` and the app.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import msgspec
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from services.gateway import feedback, requests
from services.gateway.caller import Caller, Keys
from services.gateway.errors import invalid
from services.gateway.tokens import MARK, Tokens
from tailrace import ids

_ROUTE = "/v1/feedback"
_HEADERS = ("authorization", "content-type", "traceparent", "x-tailrace-user")
_CHAT_HEADERS = (*_HEADERS, "x-tailrace-session", "x-tailrace-learn", "x-tailrace-feedback-token")
_EXPOSED = (
    *("retry-after", "x-tailrace-interaction-id", "x-tailrace-session"),
    *("x-tailrace-feedback-token", "x-tailrace-weight-versions"),
)


class _Asked(msgspec.Struct, forbid_unknown_fields=True):
    inference_id: str
    metrics: list[str] | None = None
    user: str | None = None
    expires_in_s: int | None = None


class Entrance:
    """Reads keys and tokens, and makes tokens."""

    def __init__(
        self, keys: Keys, tokens: Tokens, *, max_bytes: int, now_ms: Callable[[], int]
    ) -> None:
        self._keys = keys
        self._tokens = tokens
        self._max_bytes = max_bytes
        self._now_ms = now_ms

    def caller(self, request: Request) -> Caller:
        """The caller of a feedback route; a token counts before a key. Raises ApiError (401)."""
        token = request.query_params.get("token")
        if token is None:
            scheme, _, word = request.headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not word.strip().startswith(MARK):
                return self._keys.caller(request)
            token = word.strip()
        grant = self._tokens.read(token)
        return Caller(ids.tenant_of(grant.interaction), grant.principal, grant)

    async def issue(self, request: Request) -> Response:
        """POST /v1/feedback/tokens: a token for one interaction of the caller's tenant."""
        caller = self._keys.caller(request)
        asked = requests.decode(await requests.read(request, self._max_bytes), _Asked)
        interaction = feedback.claim(asked.inference_id, caller.tenant)
        if "!" in interaction or not ids.is_interaction(interaction):
            raise invalid(f"{interaction!r} is no interaction", "inference_id")
        feedback.check_turn(interaction, self._now_ms())
        token, grant = self._tokens.issue(
            interaction,
            metrics=asked.metrics,
            user=asked.user,
            principal=caller.principal,
            ttl_s=asked.expires_in_s,
        )
        expires = datetime.fromtimestamp(grant.expires_s, UTC).isoformat().replace("+00:00", "Z")
        body = msgspec.json.encode({"token": token, "expires": expires})
        return Response(body, 201, media_type="application/json")

    def token(self, interaction: str, caller: Caller, user: str | None) -> str:
        """The token that comes with an answer."""
        return self._tokens.issue(interaction, user=user, principal=caller.principal)[0]


class Origins:
    """CORS (https://fetch.spec.whatwg.org/#http-cors-protocol): ``origins`` may call the feedback
    routes alone, and ask the model for no answer; ``cors_origins`` may call every route."""

    def __init__(
        self, app: ASGIApp, origins: tuple[str, ...], cors_origins: tuple[str, ...] = ()
    ) -> None:
        methods = ("GET", "POST", "DELETE")
        self._others = self._feedback = app
        if origins:
            self._feedback = CORSMiddleware(
                app,
                allow_origins=origins,
                allow_methods=methods,
                allow_headers=_HEADERS,
                expose_headers=("retry-after",),
            )
        if cors_origins:
            self._others = self._whole = CORSMiddleware(
                app,
                allow_origins=cors_origins,
                allow_methods=methods,
                allow_headers=_CHAT_HEADERS,
                expose_headers=_EXPOSED,
            )
        self._cors_origins = cors_origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] != "http" or not (path == _ROUTE or path.startswith(f"{_ROUTE}/")):
            await self._others(scope, receive, send)
        elif Headers(scope=scope).get("origin") in self._cors_origins:
            await self._whole(scope, receive, send)
        else:
            await self._feedback(scope, receive, send)
