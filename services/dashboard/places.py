"""How far topics go and consumer groups have come: asked of the broker, on a thread of its own, so
that a broker that does not answer holds up no picture.

In: the log. Out: :attr:`Places.known`, replaced whole. Reads no record, joins no group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
import logging
import threading

import msgspec

from services.dashboard.system import Lag
from tailrace import topics
from tailrace.errors import LogError, MissingTopic
from tailrace.log.base import Consumer, Log
from tailrace.topics import Topic, named

_log = logging.getLogger(__name__)
Place = tuple[str, int]
"""A topic's full name and a partition."""
REWARDS = "tailrace-rewards"
"""Group of the rewards process (services/rewards)."""
GRADERS = "tailrace-graders-"
"""Before a grader's name: its group (services/graders)."""
_READ_BY_REWARDS = (topics.PROMPTS, topics.OUTPUTS, topics.FEEDBACK, topics.TICKS)
_READ_BY_GRADERS = (topics.OUTPUTS,)
_REACH_S = 5.0
"""Other questions wait for a broker six times as long: too long for a page to say nothing."""


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What was answered last."""

    error: str | None
    """None: the broker answered."""
    ends: dict[Place, int]
    """High watermarks, of the topics that there are."""
    groups: list[Lag]
    time_ms: int | None


class Places:
    """Asks again and again. ``graders`` names the graders that were heard."""

    def __init__(
        self,
        log: Log,
        rows: Iterable[Topic],
        *,
        prefix: str,
        every_s: float,
        graders: Callable[[], Iterable[str]],
        now_ms: Callable[[], int],
    ) -> None:
        self.known = Known(error="not asked yet", ends={}, groups=[], time_ms=None)
        self._log, self._prefix = log, prefix
        self._rows = tuple(rows)
        self._every_s = every_s
        self._graders, self._now_ms = graders, now_ms
        self._consumers: dict[str, Consumer] = {}
        self._failing: set[str] = set()
        """Groups that could not be asked the last time."""

    def run(self, stop: threading.Event) -> None:
        """Ask until ``stop``."""
        while not stop.is_set():
            self.ask()
            stop.wait(self._every_s)
        for consumer in self._consumers.values():
            consumer.close()

    def ask(self) -> None:
        """Once."""
        try:
            self._log.reach(_REACH_S)
            ends = self._ends()
        except LogError as error:
            if self.known.error is None:
                _log.warning("broker does not answer error=%s", error)
            self.known = msgspec.structs.replace(self.known, error=str(error))
            return
        groups = self._group("rewards", REWARDS, _READ_BY_REWARDS, ends)
        graders = sorted(set(self._graders()))
        for name in graders:
            groups += self._group(f"grader {name}", GRADERS + name, _READ_BY_GRADERS, ends)
        asked = {self._prefix + REWARDS, *(self._prefix + GRADERS + name for name in graders)}
        for group in self._consumers.keys() - asked:
            self._consumers.pop(group).close()
        self.known = Known(error=None, ends=ends, groups=groups, time_ms=self._now_ms())

    def _ends(self) -> dict[Place, int]:
        ends: dict[Place, int] = {}
        for topic in self._rows:
            name = named(topic, self._prefix)
            try:
                ends |= {(name, p): end for p, end in self._log.ends(name).items()}
            except MissingTopic:
                continue
        return ends

    def _group(
        self, who: str, group: str, reads: Iterable[Topic], ends: dict[Place, int]
    ) -> list[Lag]:
        """Its rows; one that cannot be asked says so, and holds up no other."""
        try:
            rows = self._rows_of(who, group, reads, ends)
        except LogError as error:
            if group not in self._failing:
                _log.warning("group cannot be asked group=%s error=%s", group, error)
            self._failing.add(group)
            source = f"group {self._prefix}{group} cannot be asked: {error}"
            return [Lag(consumer=who, topic=topic.name, source=source) for topic in reads]
        self._failing.discard(group)
        return rows

    def _rows_of(
        self, who: str, group: str, reads: Iterable[Topic], ends: dict[Place, int]
    ) -> list[Lag]:
        """A row for each topic of which the group has committed anything."""
        group = self._prefix + group
        if group not in self._consumers:
            self._consumers[group] = self._log.consumer(group=group)
        found = []
        for topic in reads:
            name = named(topic, self._prefix)
            partitions = [p for n, p in ends if n == name]
            if not partitions:
                continue
            committed = self._consumers[group].committed(name, partitions)
            if committed:
                # A partition of which nothing is committed may be empty: from its end, then.
                behind = sum(ends[name, p] - at for p, at in committed.items())
                source = f"committed offsets of group {group}"
                found.append(
                    Lag(consumer=who, topic=topic.name, records=max(0, behind), source=source)
                )
        return found
