"""uvicorn around the dashboard: open streams end when it is told to end."""

from __future__ import annotations

import socket

import uvicorn

from services.dashboard.app import Dashboard

_GRACE_S = 5


class Server(uvicorn.Server):
    """Serves one dashboard at its settings' address."""

    def __init__(self, dashboard: Dashboard) -> None:
        self._feed = dashboard.feed
        super().__init__(
            uvicorn.Config(
                dashboard.app(),
                host=dashboard.settings.host,
                port=dashboard.settings.port,
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=_GRACE_S,
                server_header=False,
            )
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Streams first: they would go on for ever."""
        self._feed.close()
        await super().shutdown(sockets)
