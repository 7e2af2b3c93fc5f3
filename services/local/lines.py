"""What the users' process tells the demo: one JSON line for each thing that happened to a user."""

from __future__ import annotations

import os

import msgspec


class Line(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One thing that happened to a user."""

    kind: str
    """``answer``, ``vote``, ``failed`` or ``end``."""
    time_ms: int
    asked_ms: int = 0
    interaction_id: str = ""
    question: str = ""
    text: str = ""
    finish: str = ""
    words: int = 0
    liked: bool = False
    streamed: bool = False
    silent: bool = False
    """answer: nobody will vote on it."""
    feedback_id: str = ""
    value: bool = False
    wrong: bool = False
    attempts: int = 1
    what: str = ""
    """failed: ``chat`` or ``feedback``."""
    error: str = ""


class LineLog:
    """New lines of the users' log. What was there before this object was is an earlier run's."""

    def __init__(self, log: str) -> None:
        self._log = log
        try:
            self._at = os.path.getsize(log)
        except FileNotFoundError:
            self._at = 0
        self._rest = b""

    def new(self) -> list[Line]:
        """What came since it was last asked."""
        try:
            with open(self._log, "rb") as stream:
                stream.seek(self._at)
                data = stream.read()
        except FileNotFoundError:
            return []
        self._at += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        # What is no line of ours is a traceback; it stays in the log for people.
        return [msgspec.json.decode(text, type=Line) for text in lines if text.startswith(b"{")]
