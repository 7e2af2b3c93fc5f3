"""What the runner tells its guardian to run, and what the guardian reports back.

JSON lines over pipes: each ``Program`` sent down is started and kept running, ``Report`` comes up.
A closed pipe means: end everything.
Used by :mod:`services.local.runner`, :mod:`services.local.guardian` and
:mod:`services.local.supervisor`.
"""

from __future__ import annotations

from typing import Literal

import msgspec


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """One child process that is kept running."""

    name: str
    argv: list[str]
    log: str
    """File that standard output and error are appended to."""
    stage: int = 0
    """Order of the end: all of stage 0 end before stage 1 is told to, and so on."""
    grace_s: float = 20.0
    """How long it may take to end on SIGTERM before it is killed."""
    cores: list[int] | None = None
    """Cores that it and its descendants may use; None: all."""
    nice: int = 0
    environment: dict[str, str] = {}
    """Added to the guardian's own."""
    restart: bool = True
    """Start it again when it ends by itself."""


State = Literal["running", "waiting", "ended", "refused"]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A program changed its state.

    ``running``: it has a pid. ``waiting``: it ended and is started again in ``delay_s``. ``ended``:
    it will not be started again. ``refused``: it ended with code 2, which says that its settings
    are wrong, so starting it again would not help.
    """

    name: str
    state: State
    pid: int | None = None
    code: int | None = None
    """Exit code of its last run, negative for a signal."""
    restarts: int = 0
    delay_s: float = 0.0
    text: str = ""
    """For people: what happened."""
