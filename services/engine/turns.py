"""Whose turn it is to pause, of the engines that serve one model: not all at once. Pure.

In: what engines say on ``model-acks``, in log order, and the time. Out: whether this engine may
swap now. The engines' ids give the order. An engine waits for each one before it until that has
answered for the version (applied, serving or refused), or for ``slot_s``; whoever let a slot pass
without a word is not waited for again until it is heard again.

Invariants: a wait ends within ``slot_s`` for each engine before this one, whatever is heard and
however fast versions follow each other; while each engine swaps and is heard within ``slot_s``, and
versions do not come faster than all get through with them, no two pause at the same time. Nobody is
asked for permission, so nobody waits for an answer that cannot come.
Called by :mod:`services.engine.engine`.
"""

from __future__ import annotations

import msgspec
from prometheus_client import Counter

from tailrace.events import ModelAck

MISSED = Counter("tailrace_engine_slots_missed", "Slots of other engines that ended without an ack")


class _Peer(msgspec.Struct):
    """What is known of another engine."""

    heard_ms: int
    """Append time of its newest ack."""
    served: int | None = None
    refused: set[int] = msgspec.field(default_factory=set)
    silent: bool = False
    """It let a slot pass and was not heard since."""


class Turns:
    """The order of the engines of one model, as the one called ``engine`` sees it.

    ``silent_s``: an engine that was not heard for as long, in log time, is gone. Its own acks are
    to be told as well: they carry the log's time on.
    """

    def __init__(self, engine: str, *, slot_s: float = 2.0, silent_s: float = 90.0) -> None:
        self._engine = engine
        self._slot_s, self._silent_s = slot_s, silent_s
        self._peers: dict[str, _Peer] = {}
        self._newest_ms = 0
        self._first: str | None = None
        """Whose slot it is, since ``_since``."""
        self._since = 0.0
        self._end: float | None = None
        """When the wait ends in any case; None: nobody waits."""

    def hear(self, ack: ModelAck, time_ms: int) -> None:
        """Take in the next ack of the log, with its append time."""
        self._newest_ms = max(self._newest_ms, time_ms)
        if ack.engine == self._engine:
            return
        peer = self._peers.setdefault(ack.engine, _Peer(time_ms))
        peer.heard_ms, peer.silent = time_ms, False
        if ack.state == "refused":
            peer.refused.add(ack.version)
        else:
            peer.served = ack.version

    def mine(self, version: int, now: float) -> bool:
        """May this engine pause for ``version`` now? To be asked until it may."""
        before = self._before(version)
        if self._end is None:
            self._end = now + self._slot_s * len(before)
        for name in before:
            if self._first != name:
                self._first, self._since = name, now
            slot_end = self._since + self._slot_s
            if now < min(slot_end, self._end):
                return False
            MISSED.inc()
            self._peers[name].silent = now >= slot_end
        self.rest()
        return True

    def rest(self) -> None:
        """Nothing is to be waited for any more: the next wait begins anew."""
        self._first = self._end = None

    def _before(self, version: int) -> list[str]:
        """The engines that go first and have not answered for this version, in order."""
        oldest_ms = self._newest_ms - self._silent_s * 1000
        self._peers = {n: peer for n, peer in self._peers.items() if peer.heard_ms >= oldest_ms}
        return [
            name
            for name, peer in sorted(self._peers.items())
            if name < self._engine
            and not peer.silent
            and peer.served != version
            and version not in peer.refused
        ]
