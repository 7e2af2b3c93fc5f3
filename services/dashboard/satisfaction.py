"""The satisfied share and the reward, over time and by version. Pure.

In: trajectories. Out: :class:`~services.dashboard.learning.Reward`. A trajectory counts in the
stretch of time in which it was appended and for the version that sampled most of its tokens; a
revision takes the place of the one that it supersedes, as long as that is remembered.
"""

from __future__ import annotations

from collections import Counter, deque
import math
from typing import Any

import msgspec

from services.dashboard.bounded import Memory
from services.dashboard.intervals import Mean, rounded
from services.dashboard.learning import OfVersion, Reward, Window
from services.dashboard.settings import Settings
from tailrace.estimates import wilson
from tailrace.events import Trajectory, VersionSpan

_LARGEST = 1e60
"""Larger rewards cannot be averaged."""


class _Sum:
    """Of one stretch or version."""

    def __init__(self, start_ms: int) -> None:
        self.start_ms = start_ms
        self.satisfied = 0
        self.mean = Mean()

    def add(self, reward: float, satisfied: bool) -> None:
        self.satisfied += satisfied
        self.mean.add(reward)

    def take_back(self, reward: float, satisfied: bool) -> None:
        self.satisfied -= satisfied
        self.mean.take_back(reward)

    def fields(self) -> dict[str, Any]:
        """Of a Window, rounded."""
        count = self.mean.count
        found: dict[str, Any] = {"start_ms": self.start_ms, "answers": count}
        if count:
            share = wilson(self.satisfied, count)
            found |= {
                "satisfied": self.satisfied,
                "share": rounded(self.satisfied / count),
                "share_low": rounded(share[0]),
                "share_high": rounded(share[1]),
                "reward": rounded(self.mean.mean),
            }
        if interval := self.mean.interval():
            found |= {"reward_low": rounded(interval[0]), "reward_high": rounded(interval[1])}
        return found


class _Counted(msgspec.Struct):
    """A trajectory that is in the sums; its reward is None where it has none (any more)."""

    window: int
    version: int | None
    time_ms: int
    reward: float | None


class Satisfaction:
    """Feed it, then ask for the :meth:`section`."""

    def __init__(self, settings: Settings, drops: Counter[str]) -> None:
        self.dirty = True
        self._above = settings.satisfied_above
        self._window_ms = max(1, round(settings.window_s * 1000))
        self._limit = settings.windows
        self._versions_limit = settings.versions_shown
        self._drops = drops
        self._known: Memory[str, _Counted] = Memory(
            settings.remembered, drops, "trajectory forgotten: a later revision counts beside it"
        )
        self._superseded: Memory[str, bool] = Memory(
            settings.remembered, drops, "superseded trajectory forgotten"
        )
        self._windows: dict[int, _Sum] = {}
        self._versions: dict[int, _Sum] = {}
        self._newest: deque[_Counted] = deque(maxlen=settings.newest_answers)
        self._unrewarded = 0

    def trajectory(self, event: Trajectory, time_ms: int) -> None:
        """One trajectory record; the same one again changes nothing."""
        if event.trajectory_id in self._known:
            return
        self.dirty = True
        if event.supersedes is not None:
            before = self._known.get(event.supersedes)
            if before is not None:
                self._take_back(before)
            else:
                self._superseded.put(event.supersedes, True)
        counted = _Counted(
            time_ms // self._window_ms, sampled_by(event.weight_versions), time_ms, None
        )
        self._known.put(event.trajectory_id, counted)
        if self._superseded.pop(event.trajectory_id, False):
            return  # what took its place was read before it
        if event.reward is None:
            self._unrewarded += event.revision == 0
        elif not math.isfinite(event.reward) or abs(event.reward) > _LARGEST:
            self._drops["reward is no number"] += 1
        else:
            counted.reward = event.reward
            self._add(counted)

    def _add(self, counted: _Counted) -> None:
        reward = counted.reward
        assert reward is not None
        satisfied = reward > self._above
        self._newest.append(counted)
        for sums, key, limit, reason in (
            (self._windows, counted.window, self._limit, "answer older than the stretches kept"),
            (self._versions, counted.version, self._versions_limit, "answer of an older version"),
        ):
            if key is None:
                continue
            found = sums.get(key)
            if found is None:
                if len(sums) >= limit:
                    oldest = min(sums)
                    if oldest > key:
                        self._drops[reason] += 1
                        continue
                    del sums[oldest]
                start_ms = key * self._window_ms if sums is self._windows else counted.time_ms
                found = sums[key] = _Sum(start_ms)
            found.add(reward, satisfied)

    def _take_back(self, counted: _Counted) -> None:
        reward, counted.reward = counted.reward, None
        if reward is None:
            return
        for sums, key in ((self._windows, counted.window), (self._versions, counted.version)):
            found = None if key is None else sums.get(key)
            if found is not None and found.mean.count:
                found.take_back(reward, reward > self._above)

    def section(self) -> Reward:
        """As it is now."""
        self.dirty = False
        now = _Sum(min((c.time_ms for c in self._newest), default=0))
        for counted in self._newest:
            if counted.reward is not None:
                now.add(counted.reward, counted.reward > self._above)
        return Reward(
            now=Window(**now.fields()),
            windows=[
                Window(**self._windows[key].fields())
                for key in sorted(self._windows)
                if self._windows[key].mean.count
            ],
            window_s=self._window_ms / 1000,
            by_version=[
                OfVersion(version=version, **self._versions[version].fields())
                for version in sorted(self._versions)
                if self._versions[version].mean.count
            ],
            unrewarded=self._unrewarded,
        )


def sampled_by(spans: list[VersionSpan]) -> int | None:
    """The version that sampled most of the tokens, the newest of several; None: unknown.

    >>> sampled_by([VersionSpan(version=3, end=4), VersionSpan(version=4, start=4, end=9)])
    4
    """
    tokens: Counter[int] = Counter()
    for span in spans:
        if span.version is not None and span.version >= 0:
            tokens[span.version] += max(0, span.end - span.start)
    return max(tokens, key=lambda version: (tokens[version], version), default=None)
