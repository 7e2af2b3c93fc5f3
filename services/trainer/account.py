"""What a version says about the log, and where the reading of each partition stands. Pure.

Per partition the range read, the offsets in it that are undecided (``held``), and a decision for
every other record. Invariant, checked by :meth:`Ranges.account`: the decided offsets are
``([start, end) + base.held) - held`` less what is no record or had expired. Owned by
:mod:`services.trainer.intake`; what is read is taken here by :mod:`services.trainer.reader`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from tailrace.events import Range

Place = tuple[int, int]
"""Partition and offset."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one record."""

    partition: int
    offset: int
    key: str
    """The record's session (its key where that cannot be told)."""
    trajectory_id: str
    """Empty where the record could not be read, or lies where its id does not belong."""
    outcome: str
    reason: str | None = None
    successor: str | None = None


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """Everything since the version before."""

    ranges: list[Range]
    decisions: list[Decision]


class Partition(msgspec.Struct, kw_only=True):
    """Where the reading of one partition stands."""

    start: int
    """End of the base version's range."""
    next: int
    """Offset that is read next."""
    reread: set[int]
    """Offsets that the base held and that are still to be read again."""
    owed: set[int]
    """Offsets read since the base (its held ones included): each must be decided or held."""
    expired_to: int | None = None


class Ranges:
    """The reading of all partitions since the base version."""

    def __init__(self) -> None:
        self._partitions: dict[int, Partition] = {}

    @property
    def count(self) -> int:
        """How many partitions there are."""
        return len(self._partitions)

    def begin(self, partitions: Iterable[int], ranges: Iterable[Range]) -> None:
        """Go on after a version with these ranges (none: from the log's beginning).

        ``partitions``: all of the topic's.
        """
        base = {r.partition: r for r in ranges}
        for number in partitions:
            end, held = (base[number].end, base[number].held) if number in base else (0, [])
            self._partitions[number] = Partition(start=end, next=end, reread=set(held), owed=set())

    def starts(self) -> dict[int, int]:
        """Where each partition is to be read from: the first held record or the range's end."""
        return {p: min({*s.reread, s.next}) for p, s in self._partitions.items()}

    def expire(self, lows: Mapping[int, int]) -> int:
        """Records below these low watermarks are gone. Returns how many had not been read."""
        lost = 0
        for number, low in lows.items():
            partition = self._partitions[number]
            gone = {offset for offset in partition.reread if offset < low}
            partition.reread -= gone
            lost += len(gone)
            if low > partition.next:
                lost += low - partition.next
                partition.next = partition.expired_to = low
        return lost

    def advance(self, partition: int, position: int) -> None:
        """What lies before this position and was not taken is no record."""
        at = self._partitions[partition]
        at.next = max(at.next, position)

    def next_offset(self, partition: int) -> int:
        """The first offset that was not read."""
        return self._partitions[partition].next

    def take(self, place: Place) -> bool | None:
        """The record there was read: whether the base held it; None: the base decided it."""
        partition, offset = self._partitions[place[0]], place[1]
        held = offset in partition.reread
        if held:
            partition.reread.discard(offset)
        elif offset >= partition.next:
            partition.next = offset + 1
        else:
            return None
        partition.owed.add(offset)
        return held

    def account(self, decisions: Mapping[Place, Decision], pending: Iterable[Place]) -> Account:
        """What was read since the base: decided, or held because it is not yet."""
        held: dict[int, set[int]] = {p: set(s.reread) for p, s in self._partitions.items()}
        for number, offset in pending:
            held[number].add(offset)
        ranges = []
        for number, partition in sorted(self._partitions.items()):
            decided = {o for p, o in decisions if p == number}
            assert decided == partition.owed - held[number], f"partition {number} does not tile"
            ranges.append(
                Range(
                    partition=number,
                    start=partition.start,
                    end=partition.next,
                    held=sorted(held[number]),
                    expired_to=partition.expired_to,
                )
            )
        return Account(ranges=ranges, decisions=[decisions[place] for place in sorted(decisions)])

    def published(self, pending: Iterable[Place]) -> None:
        """The account is in a version: it is the base now."""
        owed: dict[int, set[int]] = {}
        for number, offset in pending:
            owed.setdefault(number, set()).add(offset)
        for number, partition in self._partitions.items():
            partition.start, partition.expired_to = partition.next, None
            partition.owed = owed.get(number, set())
