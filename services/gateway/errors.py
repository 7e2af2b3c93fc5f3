"""What clients are told when something is wrong: OpenAI's error object, one place for all of it.

Everything that a route refuses is raised as :class:`ApiError`; :func:`response` gives it its shape,
so the official clients turn it into their own exceptions. Called by every module of the gateway.
"""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from services.gateway import metrics
from tailrace.errors import InvalidRecord
from tailrace.ids import ForeignTenant

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    409: "conflict_error",
    413: "invalid_request_error",
    422: "invalid_request_error",
}


class ApiError(Exception):
    """An answer that is an error: ``code`` a short fixed word, ``param`` the field it is about."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.headers = dict(headers or {})

    def body(self) -> dict[str, object]:
        """The error object, as it also goes into a stream that has begun."""
        kind = _TYPES.get(self.status, "server_error")
        return {
            "error": {
                "message": self.message,
                "type": kind,
                "param": self.param,
                "code": self.code,
            }
        }


def invalid(message: str, param: str | None = None, code: str = "invalid_value") -> ApiError:
    """A request that is wrong in itself."""
    return ApiError(400, message, code=code, param=param)


def of_record(error: InvalidRecord, param: str | None = None) -> ApiError:
    """What an invalid id or record means over HTTP: 403 for another tenant's, else 400."""
    status = 403 if isinstance(error, ForeignTenant) else 400
    return ApiError(status, str(error), code=error.reason, param=param)


def response(error: ApiError) -> Response:
    """The error as a response, counted."""
    metrics.REFUSED.labels(str(error.status), error.code or "").inc()
    return JSONResponse(error.body(), error.status, headers=error.headers)


async def on_api_error(request: Request, error: Exception) -> Response:
    """Starlette's handler for ApiError and InvalidRecord."""
    if isinstance(error, InvalidRecord):
        error = of_record(error)
    assert isinstance(error, ApiError)
    return response(error)


async def on_not_found(request: Request, error: Exception) -> Response:
    """Starlette's handler for an unknown route or method."""
    status = getattr(error, "status_code", 404)
    message = f"{request.method} {request.url.path} is not served here"
    return response(ApiError(status, message, code="unknown_url"))


async def on_bug(request: Request, error: Exception) -> Response:
    """Starlette's handler for what nobody expected; the server logs the traceback."""
    return response(ApiError(500, "internal error", code="internal_error"))
