"""From a feedback record to an engine that serves what was made of it. Pure.

feedback (append) -> rewards' receipt, which names trajectories -> trainer's receipt, which names
the version -> the first ack of that version or a later one. Fed with records in any order, of one
model; all times are append times. A feedback that went into several trajectories counts once, with
the first of them that is served. A version that is rolled back serves nothing any more.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Collection

import msgspec

from services.dashboard.bounded import Memory
from services.dashboard.intervals import rounded
from services.dashboard.learning import Latency, Served, Stage
from services.dashboard.settings import Settings
from tailrace.estimates import quantile
from tailrace.events import ModelAck, Receipt

Place = tuple[int, int]
"""Partition and offset."""
_JOINED = ("joined", "corrected")
_USED = ("trained", "compensated")
_SAMPLES = 2000
_SHOWN = 200
_VERSIONS = 1000
_SERVES = ("applied", "serving")


class _Said(msgspec.Struct):
    """One feedback on its way."""

    time_ms: int | None = None
    joined_ms: int | None = None
    trained_ms: int | None = None
    version: int | None = None
    waits_for: int | None = None
    """The version under which it waits for an ack."""
    done: bool = False


class _Sample(msgspec.Struct, frozen=True):
    time_ms: int
    version: int
    joined_s: float
    trained_s: float
    served_s: float

    @property
    def whole_s(self) -> float:
        return self.joined_s + self.trained_s + self.served_s


class Delay:
    """Feed it, then ask for the :meth:`section`."""

    def __init__(self, settings: Settings, drops: Counter[str]) -> None:
        self.dirty = True
        self._drops = drops
        self._withdrawn: set[int] = set()
        limit = settings.remembered
        self._said: Memory[Place, _Said] = Memory(
            limit, drops, "feedback forgotten: its way is not measured"
        )
        self._waiting: Memory[str, list[_Said]] = Memory(
            limit, drops, "trajectory forgotten: the way of its feedback is not measured"
        )
        """Feedback by the trajectories that it went into."""
        self._trained: Memory[str, tuple[int, int]] = Memory(
            limit, drops, "trained trajectory forgotten: the way of its feedback is not measured"
        )
        """Version and time, by trajectory."""
        self._unserved: Memory[int, list[_Said]] = Memory(
            _VERSIONS, drops, "version forgotten that no engine took: its feedback is not measured"
        )
        """By the version that they were trained into."""
        self._acks: Memory[int, int] = Memory(_VERSIONS, drops, "ack of an older version forgotten")
        """Time of the first ack of each version."""
        self._versions: list[int] = []
        """Those versions, ordered."""
        self._soonest: list[int] = []
        """For each of them: the first ack of it or a later one."""
        self._samples: deque[_Sample] = deque(maxlen=_SAMPLES)

    def feedback(self, place: Place, time_ms: int) -> None:
        """A feedback record."""
        said = self._of(place)
        if said.time_ms is None:
            said.time_ms = time_ms
            self._look(said)

    def receipt(self, event: Receipt, time_ms: int) -> None:
        """A receipt of either stage."""
        if event.stage == "rewards" and event.outcome in _JOINED:
            said = self._of((event.source.partition, event.source.offset))
            if said.joined_ms is not None:
                return
            said.joined_ms = time_ms
            for trajectory in event.trajectories:
                if trained := self._trained.get(trajectory):
                    self._train(said, *trained)
                else:
                    waiting = self._waiting.get(trajectory)
                    self._waiting.put(trajectory, [*(waiting or ()), said])
        elif event.stage == "trainer" and event.outcome in _USED and event.version is not None:
            if event.version in self._withdrawn:
                return
            if event.subject_id not in self._trained:
                self._trained.put(event.subject_id, (event.version, time_ms))
            for said in self._waiting.pop(event.subject_id, ()):
                self._train(said, event.version, time_ms)

    def ack(self, event: ModelAck, time_ms: int) -> None:
        """What an engine said."""
        if event.state not in _SERVES or event.version in self._acks:
            return
        self._acks.put(event.version, time_ms)
        self._versions = sorted(self._acks)
        self._soonest, soonest = [], time_ms
        for version in reversed(self._versions):
            soonest = min(soonest, self._acks[version])
            self._soonest.append(soonest)
        self._soonest.reverse()
        for version in [v for v in self._unserved if v <= event.version]:
            for said in self._unserved.pop(version):
                self._look(said)

    def withdraw(self, versions: Collection[int]) -> None:
        """All versions that are rolled back now. What waited for them is not measured, unless it
        went into other trajectories too."""
        new = set(versions) - self._withdrawn
        if not new:
            return
        self._withdrawn |= new
        for name in [n for n, (version, _) in self._trained.items() if version in new]:
            del self._trained[name]
        for version in new:
            for said in self._unserved.pop(version, ()):
                if said.version == version and not said.done:
                    said.version = said.trained_ms = said.waits_for = None
                    self._drops["version rolled back: the way of its feedback is not measured"] += 1

    def _of(self, place: Place) -> _Said:
        said = self._said.get(place)
        if said is None:
            said = _Said()
            self._said.put(place, said)
        return said

    def _train(self, said: _Said, version: int, time_ms: int) -> None:
        if said.version is None or version < said.version:
            said.version, said.trained_ms = version, time_ms
            self._look(said)

    def _look(self, said: _Said) -> None:
        """Whether it is through."""
        if said.done or said.time_ms is None or said.joined_ms is None:
            return
        if said.trained_ms is None or said.version is None:
            return
        at = bisect_left(self._versions, said.version)
        if at == len(self._versions):
            if said.waits_for != said.version:
                said.waits_for = said.version
                waiting = self._unserved.get(said.version)
                if waiting is None:
                    self._unserved.put(said.version, [said])
                elif len(waiting) < _SAMPLES:
                    waiting.append(said)
                else:
                    self._drops["version with much feedback: the way of some is not measured"] += 1
            return
        said.done = True
        self.dirty = True
        # A version may be acknowledged before its receipts were appended: never less than nothing.
        joined_ms = max(said.time_ms, said.joined_ms)
        trained_ms = max(joined_ms, said.trained_ms)
        served_ms = max(trained_ms, self._soonest[at])
        self._samples.append(
            _Sample(
                served_ms,
                said.version,
                (joined_ms - said.time_ms) / 1000,
                (trained_ms - joined_ms) / 1000,
                (served_ms - trained_ms) / 1000,
            )
        )

    def section(self) -> Latency:
        """As it is now."""
        self.dirty = False
        samples = sorted(self._samples, key=lambda s: s.time_ms)
        whole = sorted(s.whole_s for s in samples)
        stages = [
            Stage(
                name=name,
                p50_s=rounded(quantile(values, 0.5)),
                p95_s=rounded(quantile(values, 0.95)),
            )
            for name, values in (
                ("joined", sorted(s.joined_s for s in samples)),
                ("trained", sorted(s.trained_s for s in samples)),
                ("served", sorted(s.served_s for s in samples)),
            )
        ]
        every = -(-len(samples) // _SHOWN) or 1
        return Latency(
            samples=len(samples),
            p50_s=rounded(quantile(whole, 0.5)),
            p95_s=rounded(quantile(whole, 0.95)),
            stages=stages,
            recent=[
                Served(time_ms=s.time_ms, seconds=round(s.whole_s, 3), version=s.version)
                for s in samples[::-1][::every][::-1]
            ],
        )
