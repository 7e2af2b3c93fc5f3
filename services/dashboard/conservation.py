"""The conservation table, kept up record by record. Pure.

In: feedback, trajectories, receipts, manifests, ticks and dead letters, topics in any order, each
partition in its own. Out: :class:`~services.dashboard.system.Account`. Only what is undecided is
remembered by its place, and the newest of what the trainer decided, in case its version is rolled
back; the rest are numbers. Recounts nothing: `tailrace audit` does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

from services.dashboard.bounded import Memory, Names
from services.dashboard.system import Line
from tailrace.deadline import Deadline
from tailrace.events import ModelUpdate

Place = tuple[int, int]
"""Partition and offset."""
Ends = Mapping[int, tuple[int, frozenset[int]]]
"""By partition: where a version's range ends, and what it holds back below that."""
_MANIFESTS = 100
_OUTCOMES = 20
"""That are counted apart."""


class Tally:
    """One line of the table: records by their place, until each has an outcome."""

    def __init__(self, name: str, limit: int, remembered: int, drops: Counter[str]) -> None:
        self.name = name
        self.records = 0
        self.outcomes: Counter[str] = Counter()
        self.repeated = 0
        self.before = 0
        self.forgotten = 0
        self.open: dict[Place, int] = {}
        """Append time of each record without an outcome."""
        self._names = Names(_OUTCOMES)
        self._limit = limit
        self._starts: dict[int, int] = {}
        self._next: dict[int, int] = {}
        self._early: Memory[Place, tuple[str, int | None]] = Memory(
            remembered, drops, f"outcome forgotten that came before its record: {name}"
        )
        self._drops = drops

    def begin(self, partition: int, offset: int) -> None:
        """The account of a partition begins here."""
        self._starts[partition] = offset
        self._next.setdefault(partition, offset)

    def record(self, place: Place, time_ms: int) -> None:
        """The next record of a partition. One that was read before changes nothing."""
        partition, offset = place
        if offset < self._next.get(partition, 0):
            return
        self._next[partition] = offset + 1
        self.records += 1
        early = self._early.pop(place, None)
        if early is not None and self._stands(early[1]):
            self._decide(place, time_ms, *early)
        elif len(self.open) < self._limit:
            self.open[place] = time_ms
        else:
            self.forgotten += 1

    def outcome(self, place: Place, outcome: str, version: int | None = None) -> None:
        """What became of a record. Twice is once."""
        partition, offset = place
        outcome = self._names.of(outcome)
        if offset < self._starts.get(partition, 0):
            self.before += 1
        elif offset >= self._next.get(partition, 0):
            if place in self._early and not self._newer(self._early[place][1], version):
                self.repeated += 1
            else:
                self._early.put(place, (outcome, version))
        elif place in self.open:
            self._decide(place, self.open.pop(place), outcome, version)
        elif not self._again(place, outcome, version):
            self.repeated += 1

    def line(self, missing: int) -> Line:
        """As it is now; ``missing`` of those in flight should have been decided."""
        known = sum(self.outcomes.values())
        in_flight = len(self.open) - missing + self.forgotten
        return Line(
            name=self.name,
            records=self.records,
            outcomes={o: n for o, n in sorted(self.outcomes.items()) if n},
            in_flight=in_flight,
            missing=missing,
            unaccounted=self.records - known - in_flight - missing,
            oldest_ms=min(self.open.values(), default=None),
        )

    def _decide(self, place: Place, time_ms: int, outcome: str, version: int | None) -> None:
        self.outcomes[outcome] += 1

    def _again(self, place: Place, outcome: str, version: int | None) -> bool:
        """An outcome of a record that is not open. Whether it says something new."""
        if not self.forgotten:
            return False
        self.forgotten -= 1
        self._decide(place, 0, outcome, version)
        return True

    def _stands(self, version: int | None) -> bool:
        """Whether what a version decided counts."""
        return True

    def _newer(self, before: int | None, version: int | None) -> bool:
        return before is not None and version is not None and version > before


class Decisions(Tally):
    """The trainer's line. A version decides; where it is rolled back its records are open again,
    and a later version may decide them anew."""

    def __init__(self, name: str, limit: int, remembered: int, drops: Counter[str]) -> None:
        super().__init__(name, limit, remembered, drops)
        self._decided: Memory[Place, tuple[str, int, int]] = Memory(
            remembered, drops, "decided trajectory forgotten: a rollback counts it as in flight"
        )
        """Outcome, version and append time."""
        self._by_version: Memory[int, Counter[str]] = Memory(
            1000, drops, "version forgotten: its rollback would not be counted"
        )
        self._withdrawn: set[int] = set()
        self._published: dict[int, tuple[int, Ends]] = {}
        """Of the newest manifests, by version: time, and what it leaves behind it."""

    def outcome(self, place: Place, outcome: str, version: int | None = None) -> None:
        if self._stands(version):
            super().outcome(place, outcome, version)

    def _stands(self, version: int | None) -> bool:
        return version not in self._withdrawn

    def published(self, update: ModelUpdate, time_ms: int) -> None:
        """A manifest: what it decided ought to have receipts, but for what had expired unread."""
        for one in update.ranges:
            if one.expired_to is not None:
                self._expire(one.partition, one.expired_to, update.version)
        ends = {one.partition: (one.end, frozenset(one.held)) for one in update.ranges}
        self._published[update.version] = (time_ms, ends)
        if len(self._published) > _MANIFESTS:
            del self._published[next(iter(self._published))]

    def _expire(self, partition: int, below: int, version: int) -> None:
        for place in [p for p in self.open if p[0] == partition and p[1] < below]:
            self._decide(place, self.open.pop(place), "stale", version)

    def withdraw(self, versions: Collection[int]) -> None:
        """All versions that are rolled back now. Their records are open again."""
        new = set(versions) - self._withdrawn
        self._withdrawn |= new
        for version in new:
            counts = self._by_version.pop(version, None)
            if counts is None:
                continue
            self.outcomes.subtract(counts)
            back = [p for p, (_, decided, _) in self._decided.items() if decided == version]
            for place in back:
                self.open[place] = self._decided.pop(place)[2]
            self.forgotten += counts.total() - len(back)

    def missing(self, now_ms: int, grace_ms: int) -> int:
        """Open records that a version took whose manifest is older than ``grace_ms``."""
        ends = self._newest_ends(now_ms - grace_ms)
        return sum(
            1
            for partition, offset in self.open
            if partition in ends
            and offset < ends[partition][0]
            and offset not in ends[partition][1]
        )

    def decided(self) -> dict[int, int]:
        """By partition: how many records the newest version that stands leaves behind it."""
        ends = self._newest_ends(None)
        return {partition: end - len(held) for partition, (end, held) in ends.items()}

    def _newest_ends(self, before_ms: int | None) -> Ends:
        for version, (time_ms, ends) in reversed(self._published.items()):
            if self._stands(version) and (before_ms is None or time_ms < before_ms):
                return ends
        return {}

    def _decide(self, place: Place, time_ms: int, outcome: str, version: int | None) -> None:
        super()._decide(place, time_ms, outcome, version)
        if version is None:
            return
        counts = self._by_version.get(version)
        if counts is None:
            counts = Counter()
            self._by_version.put(version, counts)
        counts[outcome] += 1
        self._decided.put(place, (outcome, version, time_ms))

    def _again(self, place: Place, outcome: str, version: int | None) -> bool:
        before = self._decided.get(place)
        if before is None:
            return super()._again(place, outcome, version)
        if not self._newer(before[1], version):
            return False
        # It was read before the release that rolled the older version back.
        self.outcomes[before[0]] -= 1
        if (counts := self._by_version.get(before[1])) is not None:
            counts[before[0]] -= 1
        self._decide(place, before[2], outcome, version)
        return True


class Answers:
    """The first line: outputs, by interaction and choice, until a trajectory holds them."""

    def __init__(self, limit: int, remembered: int, drops: Counter[str]) -> None:
        self._drops = drops
        self.records = 0
        self.outcomes: Counter[str] = Counter()
        self.since_ms: int | None = None
        self._open: Memory[tuple[str, int], int] = Memory(
            limit, drops, "answer forgotten that had no trajectory"
        )
        self._closed: Memory[tuple[str, int], bool] = Memory(
            remembered, drops, "closed answer forgotten: the same one again counts as another"
        )

    def output(self, key: tuple[str, int] | None, time_ms: int) -> None:
        """One output; None: it cannot be read."""
        self.since_ms = time_ms if self.since_ms is None else min(self.since_ms, time_ms)
        self.records += 1
        if key is None:
            self.outcomes["unreadable"] += 1
        elif key in self._open:
            self.outcomes["duplicate"] += 1
        elif key in self._closed:
            early = self._closed[key]
            self._closed[key] = False
            self.outcomes["closed" if early else "duplicate"] += 1
        elif forgotten := self._open.put(key, time_ms):
            self.outcomes["forgotten"] += 1
            del forgotten

    def trajectory(self, key: tuple[str, int], output_ms: int | None) -> None:
        """The first revision of an answer; ``output_ms``: when its output was appended."""
        if self._open.pop(key, None) is not None:
            self.outcomes["closed"] += 1
            self._closed.put(key, False)
        elif key not in self._closed and (output_ms or 0) >= (self.since_ms or 0):
            self._closed.put(key, True)

    def expire(self, before_ms: int) -> None:
        """Answers that nobody will close: they have no prompt, or rewards gave them up."""
        while self._open and (oldest := next(iter(self._open.items())))[1] < before_ms:
            del self._open[oldest[0]]
            self.outcomes["given_up"] += 1

    def line(self) -> Line:
        """As it is now."""
        return Line(
            name="answers",
            records=self.records,
            outcomes={o: n for o, n in sorted(self.outcomes.items()) if n},
            in_flight=len(self._open),
            unaccounted=self.records - self.outcomes.total() - len(self._open),
            oldest_ms=min(self._open.values(), default=None),
        )


def late(tally: Tally, deadline: Deadline) -> int:
    """Open feedback that ought to have had its receipt."""
    return sum(deadline.passed(place[0], time_ms) for place, time_ms in tally.open.items())
