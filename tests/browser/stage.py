"""A dashboard on loopback over any log, in a thread of its own."""

from __future__ import annotations

from pathlib import Path
import threading
import time
from typing import Any

from services.dashboard.app import Dashboard
from services.dashboard.server import Server
from services.dashboard.settings import Settings
from services.local.ports import free_port
from tailrace.log.base import Log
from tests.gateway.fakevllm import wait_until

MODEL = "smollm2-135m-instruct"


class Stage:
    """Served until it is closed; ``url`` is the page's. ``settings``: what is not the default."""

    def __init__(self, log: Log, folder: Path, *, port: int = 0, **settings: Any) -> None:
        self.port = port or free_port()
        given = {"refresh_s": 0.2, "model": MODEL, "state_dir": folder, "port": self.port}
        self.dashboard = Dashboard(
            Settings(**given | settings), log, now_ms=lambda: time.time_ns() // 1_000_000
        )
        self.url = f"http://127.0.0.1:{self.port}"
        self._server = Server(self.dashboard)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        wait_until(lambda: self._server.started, "the dashboard")

    def close(self) -> None:
        """End it; open streams end too."""
        self._server.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive()
