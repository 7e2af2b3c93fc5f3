"""Who may come in, and what every answer says about itself: ASGI around the app.

The page needs no other host but the gateway, runs no script but its own files, and is shown in no
other page. A request under a name that is not this page's is refused: else any site could point its
own name at loopback and read along (DNS rebinding). Supervisors and Prometheus come by an address;
what they ask for holds nothing that people wrote.
"""

from __future__ import annotations

from collections.abc import Sequence
import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.dashboard import errors
from services.dashboard.settings import Settings
from tailrace.errors import SettingsError

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_BY_ANY_NAME = ("/health", "/healthz", "/ready", "/readyz", "/metrics")


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reached from this machine alone.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def origin_of(url: str) -> str:
    """Scheme, host and port of a URL. Raises SettingsError for what is none of HTTP, and for one
    with a user or a password, which every browser would be told.

    >>> origin_of("http://127.0.0.1:8080/v1")
    'http://127.0.0.1:8080'
    """
    if "@" in url:
        raise SettingsError("dashboard.gateway_url: it goes to browsers: no user and no password")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise SettingsError(f"dashboard.gateway_url: {url!r} is not like http://127.0.0.1:8080")
    return f"{parts.scheme}://{parts.netloc}"


def check(settings: Settings) -> None:
    """Raises SettingsError for an address that is not meant."""
    if not is_loopback(settings.host) and not settings.exposed:
        raise SettingsError(
            f"dashboard.host: {settings.host} can be reached from elsewhere, and there is no "
            "log-in: set dashboard.exposed = true if that is meant"
        )
    if settings.gateway_url:
        origin_of(settings.gateway_url)


def headers(settings: Settings) -> dict[str, str]:
    """Of every answer."""
    gateway = f" {origin_of(settings.gateway_url)}" if settings.gateway_url else ""
    policy = (
        "default-src 'self'",
        f"connect-src 'self'{gateway}",
        "img-src 'self' data:",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
    return {
        "content-security-policy": "; ".join(policy),
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "x-frame-options": "DENY",
        "cross-origin-resource-policy": "same-origin",
    }


class Entrance:
    """See the module."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._headers = headers(settings)
        names = (*_LOOPBACK, settings.host, *settings.hosts)
        self._hosts: Sequence[str] | None = [name.lower() for name in names]
        if settings.exposed and not settings.hosts:
            self._hosts = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def decorated(message: Message) -> None:
            if message["type"] == "http.response.start":
                found = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    found[name] = value
                if scope["path"].startswith("/static/"):
                    found.setdefault("cache-control", "no-cache")
            await send(message)

        host = Headers(scope=scope).get("host", "")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
        known = self._hosts is None or name.strip("[]").lower() in self._hosts
        if not known and scope["path"] not in _BY_ANY_NAME:
            refused = errors.response(421, f"this page is not {name!r}; see dashboard.hosts")
            await refused(scope, receive, decorated)
            return
        await self._app(scope, receive, decorated)
