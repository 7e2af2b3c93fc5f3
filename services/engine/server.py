"""Is there a vLLM that answers? Its own child, restarted with back-off, or one that was attached
to.

In: the clock, :class:`~services.engine.vllm.Vllm` and the admin API. Out: up or not, and since
when. A vLLM that comes up holds the base folder's weights under no label that counts: whoever asks
must do a full swap first. Called every turn by :mod:`services.engine.engine`, on its thread.
"""

from __future__ import annotations

from collections.abc import Callable
import logging
from typing import Protocol

from prometheus_client import Counter

logger = logging.getLogger(__name__)

RESTARTS = Counter("tailrace_engine_vllm_restarts", "vLLM processes ended or given up", ["reason"])
for _kind in ("exit", "unfit", "start", "given up"):
    RESTARTS.labels(_kind)  # at 0 from the start: else the first one is no increase

_BACKOFF_S = (1.0, 2.0, 5.0, 10.0, 30.0)


class Child(Protocol):
    """What is asked of :class:`services.engine.vllm.Vllm`."""

    def start(self) -> None:
        """Start a new one."""

    def exit_code(self) -> int | None:
        """None while it runs."""

    def last_words(self) -> str:
        """What it said last."""

    def stop(self) -> None:
        """End it in order."""

    def kill(self) -> None:
        """End it at once."""


class Server:
    """One vLLM after another. ``child`` None: attached, somebody else restarts it."""

    def __init__(
        self,
        child: Child | None,
        healthy: Callable[[], bool],
        *,
        clock: Callable[[], float],
        start_s: float,
        missing: Callable[[], str | None] = lambda: None,
    ) -> None:
        """``missing``: what one that was attached to lacks, asked when it answers."""
        self.reason: str | None = "vllm is starting"
        """Why it is not up; None: it is."""
        self._child = child
        self._healthy, self._missing = healthy, missing
        self._clock = clock
        self._start_s = start_s
        self._running = False
        self._failures = 0
        self._began = 0.0
        self._not_before = 0.0

    @property
    def ended(self) -> bool:
        """Is none running, and that sure? Of one that was attached to it never is."""
        return self._child is not None and not self._running

    def check(self) -> bool:
        """Start what must be started; is it up?"""
        now = self._clock()
        if self._child is not None:
            if not self._running:
                if now < self._not_before:
                    return False
                self._child.start()
                self._running, self._began = True, now
            code = self._child.exit_code()
            if code is not None:
                self._down(f"exit code {code}: {self._child.last_words()}", "exit")
                return False
        elif now < self._not_before:
            return False
        if self.reason is None:
            return True
        if self._healthy():
            lacks = self._missing()
            if lacks is not None:
                self._down(lacks, "unfit")
                return False
            logger.info("vllm answers after_s=%.1f", now - self._began)
            self.reason = None
            return True
        if self._child is not None and now - self._began > self._start_s:
            self._down(f"not healthy after {self._start_s} s", "start")
        return False

    def give_up(self, reason: str) -> None:
        """It holds nobody knows what, or does not answer: end it if it is ours, start again."""
        self._down(reason, "given up")

    def well(self) -> None:
        """It came to serve: forget earlier failures."""
        self._failures = 0

    def stop(self) -> None:
        """End it with this process."""
        if self._child is not None and self._running:
            self._child.stop()
            self._running = False

    def _down(self, reason: str, kind: str) -> None:
        logger.error("vllm is down: %s", reason)
        RESTARTS.labels(kind).inc()
        self.reason = f"vllm is down: {reason}"
        wait_s = _BACKOFF_S[min(self._failures, len(_BACKOFF_S) - 1)]
        self._failures += 1
        self._not_before = self._clock() + wait_s
        if self._child is not None and self._running:
            self._child.kill()
            self._running = False
