"""What requests are told when something is wrong: one shape, ``{"error": {"message", "type"}}``."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from services.dashboard import metrics

_TYPES = {
    400: "invalid_request_error",
    404: "not_found_error",
    405: "invalid_request_error",
    421: "invalid_request_error",
    503: "unavailable_error",
    504: "timeout_error",
}


class ApiError(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def response(status: int, message: str) -> Response:
    """The error as a response, counted."""
    metrics.REFUSED.labels(str(status)).inc()
    kind = _TYPES.get(status, "server_error")
    # An id in a message is what anybody sent: half surrogates have no encoding.
    shown = message.encode(errors="replace").decode()
    body = msgspec.json.encode({"error": {"message": shown, "type": kind}})
    return Response(body, status, media_type="application/json")


async def on_api_error(request: Request, error: Exception) -> Response:
    """Starlette's handler for ApiError."""
    assert isinstance(error, ApiError)
    return response(error.status, error.message)


async def on_http_error(request: Request, error: Exception) -> Response:
    """Starlette's handler for an unknown route or method."""
    status = getattr(error, "status_code", 404)
    return response(status, f"{request.method} {request.url.path} is not served here")


async def on_bug(request: Request, error: Exception) -> Response:
    """Starlette's handler for what nobody expected; the server logs the traceback."""
    return response(500, "internal error")
