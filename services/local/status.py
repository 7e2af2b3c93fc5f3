"""How the children are, for people: events, a status each, their last words.

Called by :mod:`services.local.runner`; the demo's view shows what is here.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
import socket
import time
import urllib.error
import urllib.request

import msgspec

from services.local.programs import Report, State

_TAIL_BYTES = 4096


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something happened: ``text`` is one line for people."""

    time_s: float
    """Seconds since the epoch."""
    name: str
    """The child, or ``runner``, or ``prepare``."""
    text: str
    report: Report | None = None
    """Set when a child changed its state."""


class Status(msgspec.Struct, kw_only=True):
    """One child, as it is now."""

    name: str
    log: Path
    state: State = "waiting"
    ready: bool = False
    """It has said since its last start that it is ready."""
    reason: str = ""
    """Why it was not ready when it was last asked."""
    pid: int | None = None
    restarts: int = 0
    code: int | None = None
    """Exit code of its last run, negative for a signal."""
    since_s: float = 0.0
    """When it got into this state, seconds since the epoch."""
    last_line: str = ""
    """The last line of its log."""

    def follow(self, report: Report) -> None:
        """Take over what the guardian reports."""
        self.state = report.state
        if report.state != "running":
            self.ready = False
        self.pid = report.pid
        self.restarts = report.restarts
        self.since_s = time.time()
        if report.code is not None:
            self.code = report.code


def last_line(log: Path) -> str:
    """The last line of a log; of a JSON line its message alone."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = stream.read().decode(errors="replace").split("\n")
    except FileNotFoundError:
        return ""
    line = next((line for line in reversed(lines) if line.strip()), "")
    try:
        return str(json.loads(line)["message"])
    except (ValueError, TypeError, KeyError):
        return line.strip()


def listening(port: int) -> str | None:
    """None when something listens on this port of loopback, else the reason why not."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2.0):
            return None
    except OSError as error:
        return str(error)


def readiness(url: str) -> str | None:
    """None when /readyz answers 200, else the reason in a few words."""
    try:
        with urllib.request.urlopen(url, timeout=2.0):
            return None
    except urllib.error.HTTPError as error:
        with error:
            return error.read(500).decode(errors="replace").strip() or f"status {error.code}"
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))
