"""The engine loop: from a version on the log to a version that answers.

    model-updates ──> host copy ──> swap into vLLM ──> canary ──> model-acks
                      (HostCopy)        (Swap)

One turn follows the log, checks vLLM, brings the host copy to the version that is to be served and
swaps it in, when the engines before it have done so (:mod:`services.engine.turns`). Several
versions that came meanwhile are applied to the copy and swapped in once.
Commit points, in order: applied, laid, paused, started, updated, finished, resumed, checked, acked;
a kill at any of them is repaired by the next start, which trusts no label and swaps in full.

Invariants: what is served was verified in the host copy; a version that its canary or vLLM refuses
is swapped back and not tried again; the log being away never stops serving. One thread; only
:meth:`Engine.reason` is asked from another.
"""

from __future__ import annotations

from collections.abc import Callable
import logging

import msgspec
from prometheus_client import Counter, Gauge, Histogram

from services.engine import canary
from services.engine.acks import Acks
from services.engine.adapters import Adapters
from services.engine.admin import Admin
from services.engine.hostcopy import LOG_TROUBLE, HostCopy
from services.engine.peers import Peers
from services.engine.refusals import Refusals
from services.engine.server import Server
from services.engine.slot import Slot
from services.engine.swap import Doubt, Load, Swap
from services.engine.turns import Turns
from services.engine.watch import Watch
from tailrace.errors import LogError, UpdateRefused
from tailrace.weights.releases import Releases
from tailrace.weights.store import Store
from tailrace.weights.subscriber import Subscriber

logger = logging.getLogger(__name__)

VERSION = Gauge("tailrace_engine_served_version", "The version that is served")
SWAPS = Counter("tailrace_engine_swaps", "Versions by what became of them", ["outcome"])
for _outcome in ("applied", "relabelled", "refused", "doubt"):
    SWAPS.labels(_outcome)  # at 0 from the start: else the first refusal is no increase
PAUSE = Histogram(
    "tailrace_engine_pause_seconds",
    "How long an update of what was served froze running requests",
    buckets=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1, 2, 5, 10, 30),
)
APPLY = Histogram(
    "tailrace_engine_apply_seconds",
    "Fetch, apply, digest and lay down, before a swap",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
)

_LOADS = 2
"""How often a version may leave vLLM in doubt before it is refused."""
_TURN_S = 0.02
"""How often an engine that waits for its turn looks for the acks of those before it."""
_LOG_PATIENCE_S = 30.0
"""How long a vLLM that is up waits for the log before it serves what the host copy has."""


class Served(msgspec.Struct, frozen=True):
    """What vLLM holds, by a swap of this process."""

    version: int
    digest: str


class Engine:
    """Owns the host copy and the swap. ``clock`` in seconds, monotonic."""

    def __init__(
        self,
        *,
        store: Store,
        subscriber: Subscriber,
        releases: Releases,
        server: Server,
        admin: Admin,
        swap: Swap,
        slot: Slot,
        turns: Turns,
        peers: Peers,
        adapters: Adapters,
        acks: Acks,
        clock: Callable[[], float],
        canary_tolerance: float = 0.3,
        serving_ack_s: float = 30.0,
        journal_bytes: int = 0,
        step: Callable[[str], None] = lambda point: None,
    ) -> None:
        self.copy = HostCopy(
            store,
            subscriber,
            releases,
            Refusals(acks, clock, SWAPS),
            clock=clock,
            journal_bytes=journal_bytes,
            step=step,
        )
        self._server, self._admin = server, admin
        self._swap, self._slot = swap, slot
        self._watch = Watch(admin, swap, clock)
        self._turns, self._peers, self._adapters = turns, peers, adapters
        self._acks, self._step = acks, step
        self._clock = clock
        self._canary_tolerance, self._serving_ack_s = canary_tolerance, serving_ack_s
        self.served: Served | None = None
        self._doubts = 0
        self._waits = False
        """For its turn."""
        self._up_since: float | None = None
        self._next_ack = 0.0

    def reason(self) -> str | None:
        """Why this engine is not ready; None: it serves a version that it swapped in and knows."""
        if self._server.reason is not None:
            return self._server.reason
        return "no full swap since vllm came up" if self.served is None else None

    def turn(self, wait_s: float = 0.2) -> None:
        """One round; waits up to ``wait_s`` for something new on the log."""
        self._follow(wait_s)
        if self._server.ended:
            self._adapters.end()
        if self._server.check():
            self._up_since = self._clock() if self._up_since is None else self._up_since
        else:
            self._up_since = None
            self._lose()
        self.copy.advance()
        self._look_after()
        if self._server.reason is None and self._may_serve():
            self._serve()
        if self.served is not None and self._adapters.turn(self.served.digest):
            self._next_ack = self._clock()  # the last word of an engine is what it serves
        self._heartbeat()

    def _follow(self, wait_s: float) -> None:
        try:
            self.copy.follow(min(wait_s, _TURN_S) if self._waits else wait_s)
            self._peers.poll()
        except LogError as error:
            LOG_TROUBLE.inc()
            logger.warning("the log does not answer: %s", error)

    def _may_serve(self) -> bool:
        if self.copy.version is None:
            return False
        if self.served is None and not self.copy.caught_up:
            assert self._up_since is not None
            return self._clock() > self._up_since + _LOG_PATIENCE_S
        return True

    def _serve(self) -> None:
        """Make vLLM serve what the host copy holds, if it does not yet."""
        version, digest = self.copy.version, self.copy.digest
        assert version is not None
        if self.served == Served(version, digest):
            self._turns.rest()
            self._waits = False
            return
        self._waits = not self._may_pause(version, digest)
        if self._waits:
            return
        same = self.served is not None and self.served.digest == digest
        try:
            if not same and not self._adapters.leave(digest):
                return
        except Doubt as doubt:
            self._lose(str(doubt))
            return
        apply_s, self.copy.apply_s = self.copy.apply_s, 0.0
        froze_ms = None
        try:
            if same:
                self._swap.relabel(version)
            else:
                began = self._clock()
                path = self._slot.write(self.copy.tensors, digest, self._sure())
                apply_s += self._clock() - began
                self._step("laid")
                froze_ms = self._swap.load(Load(version=version, digest=digest, path=str(path)))
        except Doubt as doubt:
            self._in_doubt(str(doubt))
            return
        except UpdateRefused as error:  # it never gets into vLLM: nothing was touched
            self.copy.give_up(error)
            return
        except OSError as error:  # no room for the file: nothing was touched
            logger.error("cannot lay down version=%d: %s", version, error)
            if self.copy.can_go_back:
                self.copy.give_up(UpdateRefused("no room", str(error)))
            return
        finally:
            self._slot.clear()
        before, self.served = self.served, Served(version, digest)
        self._doubts = 0
        self._server.well()
        VERSION.set(version)
        APPLY.observe(apply_s)
        # The swap before ready is part of the start: no version was served that stood still.
        pause_ms = froze_ms if before is not None else None
        if pause_ms is not None:
            PAUSE.observe(pause_ms / 1000)
        wrong, note = False, None
        if froze_ms is not None and self._adapters.under_way:
            note = "canary: left out, an answer with an adapter may be under way"
        elif froze_ms is not None:
            wrong, note = canary.check(self._admin, self.copy.manifest, self._canary_tolerance)
        self._step("checked")
        if wrong and self.copy.can_go_back:
            self.copy.give_up(f"canary: {note}")
            self._serve()
            return
        self.copy.confirm()
        SWAPS.labels("applied" if froze_ms is not None else "relabelled").inc()
        apply_ms = apply_s * 1000
        logger.info(
            "serving version=%d before=%s apply_ms=%.0f froze_ms=%s note=%s",
            version, before and before.version, apply_ms, froze_ms and round(froze_ms), note,
        )  # fmt: skip
        self._acks.send(
            "applied", version, digest, apply_ms=apply_ms, pause_ms=pause_ms, reason=note
        )
        self._step("acked")
        self._next_ack = self._clock() + self._serving_ack_s

    def _sure(self) -> str | None:
        """The digest of what vLLM holds, if that is sure: not after what its canary refused."""
        served = self.served
        if served is None or served.version in self.copy.refused:
            return None
        return served.digest

    def _may_pause(self, version: int, digest: str) -> bool:
        """Not before the engines whose turn it is, where requests would stand still for it."""
        served = self.served
        if served is None or served.version in self.copy.refused or served.digest == digest:
            return True
        return self._turns.mine(version, self._clock())

    def _in_doubt(self, reason: str) -> None:
        SWAPS.labels("doubt").inc()
        self._doubts += 1
        if self._doubts >= _LOADS and self.copy.can_go_back:
            self.copy.give_up(f"load: {reason}")
            self._doubts = 0
        self._lose(reason)

    def _lose(self, doubt: str | None = None) -> None:
        """Nobody knows what vLLM holds; with a ``doubt`` about it, it is given up."""
        self.served = None
        self._adapters.forget()
        if doubt is not None:
            self._server.give_up(doubt)

    def _look_after(self) -> None:
        if (served := self.served) is None:
            return
        due = (served.version, served.digest) != (self.copy.version, self.copy.digest)
        try:
            if not self._watch.holds(served.version, swap_due=due):
                self._lose()
        except Doubt as doubt:
            self._lose(str(doubt))

    def _heartbeat(self) -> None:
        if self.served is None or self._clock() < self._next_ack:
            return
        self._next_ack = self._clock() + self._serving_ack_s
        self._acks.send("serving", self.served.version, self.served.digest)
