"""The swap: another version's weights into a running vLLM, or none of it.

    pause ── start ── update ── finish ── weight_info ── resume
      │        └───────── trouble: settle, load again in full ─┘ (once)
      └──────── trouble: settle, pause again (once)

In: where the whole version lies and its number. Out: how long requests were frozen. Invariants:
resume is called only after a finish that succeeded and a label that is right, so a half-loaded
model never serves; a call whose answer is missing is not repeated before vLLM answered a later read
(its core works in order, so then the earlier call has ended); whatever cannot be settled ends in
:class:`Doubt`, with vLLM left frozen for its supervisor to restart.

No clock and no HTTP of its own; called by :mod:`services.engine.engine`.
"""

from __future__ import annotations

from collections.abc import Callable
import logging

import msgspec

from services.engine.admin import Admin, Gone, Refused, Trouble, Unanswered

logger = logging.getLogger(__name__)


class Doubt(Exception):
    """Nobody knows what vLLM holds: restart it."""


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """A version, ready to be loaded."""

    version: int
    digest: str
    path: str
    """Of the safetensors file with the whole version."""


class Swap:
    """Puts versions into one vLLM.

    ``clock`` in seconds, monotonic; ``settle_s`` bounds the wait for a vLLM that does not answer;
    ``wait`` sleeps between two reads; ``step`` is told each commit point that was passed (tests
    kill the process there).
    """

    def __init__(
        self,
        admin: Admin,
        *,
        clock: Callable[[], float],
        wait: Callable[[float], None],
        settle_s: float = 30.0,
        step: Callable[[str], None] = lambda point: None,
    ) -> None:
        self._admin = admin
        self._clock = clock
        self._wait = wait
        self._settle_s = settle_s
        self._step = step

    def load(self, load: Load) -> float:
        """Load a version and serve it. Returns the pause in ms, from pause sent to resume returned.

        Raises Doubt.
        """
        began = self._clock()
        self._pause()
        self._step("paused")
        try:
            self._fill(load)
        except Trouble as error:
            logger.warning("loading again version=%d: %s", load.version, error)
            if not self._settle():
                self._pause()
            try:
                self._fill(load)
            except Trouble as again:
                raise Doubt(f"version {load.version} does not load: {again}") from again
        self._resume()
        self._step("resumed")
        return (self._clock() - began) * 1000

    def relabel(self, version: int) -> None:
        """Give the weights that are served another number. Raises Doubt."""
        label = str(version)
        try:
            self._admin.label(label)
        except Trouble as error:
            logger.warning("label unanswered version=%d: %s", version, error)
            self._settle()
        try:
            found = self._admin.weight_info()
        except Trouble as error:
            raise Doubt(f"no label after naming {label}: {error}") from error
        if found != label:
            raise Doubt(f"label is {found}, not {label}")

    def resume(self) -> None:
        """Wake a vLLM that holds a whole version but is frozen. Raises Doubt."""
        self._resume()

    def _fill(self, load: Load) -> None:
        label = str(load.version)
        try:
            self._admin.start()
        except Refused as error:
            if "already active" not in error.text:
                raise
            logger.warning("finishing an open update version=%d", load.version)
        self._step("started")
        self._admin.update(load.path, load.digest)
        self._step("updated")
        self._admin.finish(label)
        self._step("finished")
        found = self._admin.weight_info()
        if found != label:
            raise Refused("weight_info", 200, f"label is {found}, not {label}")

    def _pause(self) -> None:
        try:
            self._admin.pause()
        except Unanswered as error:
            logger.warning("pause unanswered: %s", error)
            self._settle()
            # It may be frozen with its caches not yet dropped: a second pause ends only when they
            # are, and changes nothing where the first did all.
            self._surely(self._admin.pause)
        except Trouble as error:
            raise Doubt(f"pause: {error}") from error

    def _resume(self) -> None:
        try:
            self._admin.resume()
        except Unanswered as error:
            logger.warning("resume unanswered: %s", error)
            if self._settle():
                self._surely(self._admin.resume)
        except Trouble as error:
            raise Doubt(f"resume: {error}") from error

    def _settle(self) -> bool:
        """Wait until vLLM has worked off everything sent so far; is it paused? Raises Doubt."""
        end = self._clock() + self._settle_s
        while True:
            try:
                self._admin.weight_info()
                return self._admin.is_paused()
            except Unanswered as error:
                if self._clock() >= end:
                    raise Doubt(f"no answer for {self._settle_s} s: {error}") from error
                self._wait(0.2)
            except (Refused, Gone) as error:
                raise Doubt(str(error)) from error

    def _surely(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Trouble as error:
            raise Doubt(str(error)) from error
