"""What every process does at its start and end: settings, logging, signals, metrics and health.

A service's ``__main__`` calls :func:`start` before it imports anything heavy, so a typo in the
settings answers at once, with exit code 2 and the key's name.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import json
import logging
import os
from pathlib import Path
import re
import signal
import sys
import threading
import time
from typing import TypeVar

import msgspec

from tailrace import settings
from tailrace.errors import Fenced, SettingsError, TailraceError

S = TypeVar("S", bound=settings.Common)
_SECRETS = ("token", "key", "keys", "password", "secret")
_CREDENTIALS = re.compile(r"//[^/@]*@")
"""User and password of a URL, as of Redis or a registry."""


def start(service: str, cls: type[S], argv: list[str] | None = None) -> S:
    """Read the settings, configure logging, say both. Exits with 2 when a setting is wrong."""
    parser = argparse.ArgumentParser(prog=f"python -m services.{service}")
    parser.add_argument("--settings", type=Path, help="settings file (TOML)")
    arguments = parser.parse_args(argv)
    try:
        values = settings.load(cls, service, os.environ, arguments.settings)
        configure_logging(service, values.log_level)
    except SettingsError as error:
        print(f"{service}: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    shown = {
        name: _shown(name, value)
        for name, value in msgspec.to_builtins(values, enc_hook=str).items()
    }
    logging.getLogger(__name__).info("started service=%s settings=%s", service, json.dumps(shown))
    return values


def _shown(name: str, value: object) -> object:
    if name.rpartition("_")[2] in _SECRETS and value:
        return "***"
    return _CREDENTIALS.sub("//***@", value) if isinstance(value, str) else value


def configure_logging(service: str, level: str) -> None:
    """Lines for people on a terminal, JSON lines otherwise; to standard error.

    Raises SettingsError for an unknown level.
    """
    handler = logging.StreamHandler()
    if sys.stderr.isatty():
        handler.setFormatter(logging.Formatter(f"%(asctime)s {service} %(levelname)s %(message)s"))
    else:
        handler.setFormatter(_JsonLines(service))
    try:
        logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    except ValueError as error:
        raise SettingsError(f"log_level: {error}") from None


class _JsonLines(logging.Formatter):
    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname,
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def ended(service: str, error: TailraceError) -> int:
    """Say why a process ends by itself; its exit code.

    2 a setting is wrong, 3 another one took over, 1 anything else: a supervisor may try again.
    """
    match error:
        case SettingsError():
            code, why = 2, str(error)
        case Fenced():
            code, why = 3, f"another one took over: {error}"
        case _:
            logging.getLogger(__name__).critical("ended error=%s", error)
            return 1
    print(f"{service}: {why}", file=sys.stderr)
    return code


def stopping() -> threading.Event:
    """An event that SIGTERM and SIGINT set. For the main thread."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def expose(
    port: int | None, ready: Callable[[], str | None], host: str = "127.0.0.1"
) -> ThreadingHTTPServer | None:
    """Serve /metrics, /healthz and /readyz on a thread of their own.

    ``ready`` answers None when the process can do its work, else the reason why not (503).
    """
    if port is None:
        return None
    import prometheus_client

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, kind = 200, "text/plain; charset=utf-8"
            if self.path == "/metrics":
                body, kind = (
                    prometheus_client.generate_latest(),
                    prometheus_client.CONTENT_TYPE_LATEST,
                )
            elif self.path == "/healthz":
                body = b"ok\n"
            elif self.path == "/readyz":
                reason = ready()
                status, body = (200, b"ok\n") if reason is None else (503, f"{reason}\n".encode())
            else:
                status, body = 404, b"not found\n"
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Probes come every second; they are not news."""

    server = ThreadingHTTPServer((host, port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server
