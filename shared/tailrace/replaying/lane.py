"""One partition of one topic on its way from one prefix to another. Pure.

Knows where the copied records lie in the target, so that a tick's ends can be moved there, and
finds its place again from what the target holds. Used by the replayer.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping

from tailrace.errors import LogError
from tailrace.log.base import LogRecord
from tailrace.replaying.plan import SOURCE

NUMBER = "tailrace-number"
"""Header: how many records of the partition were copied before it, and how many left out."""


class Lane:
    """``[start, end)`` of a partition. ``number`` records of it are in the target."""

    def __init__(self, start: int, end: int) -> None:
        self.start, self.end = start, max(start, end)
        self.at = start
        """Where the original is read next."""
        self.number = 0
        self.left_out = 0
        self._sources: list[int] = []
        self._numbers: list[int] = []
        """Runs: copied records that follow each other in the original too."""

    def mark(self) -> bytes:
        """The header :data:`NUMBER` of the record that is copied next."""
        return b"%d/%d" % (self.number, self.left_out)

    def copied(self, offset: int) -> None:
        """The record of that offset is the next in the target."""
        if not self._sources or offset - self._sources[-1] != self.number - self._numbers[-1]:
            self._sources.append(offset)
            self._numbers.append(self.number)
        self.number += 1
        self.at = offset + 1

    def moved(self, end: int) -> int:
        """The target's offset of an original's: how many of the copied records lay below it."""
        run = bisect_right(self._sources, end - 1) - 1
        if run < 0:
            return 0
        following = self._numbers[run + 1] if run + 1 < len(self._numbers) else self.number
        return min(self._numbers[run] + end - self._sources[run], following)

    def resume(self, last: LogRecord) -> bool:
        """Go on after the newest record of the target. False: some of the stretch was passed over,
        so the records before it must be told too, by :meth:`retrace`. Raises LogError where the
        target is not what was copied."""
        source, number, left_out = _told(last)
        if source - self.start != number:
            return False
        self._sources, self._numbers = [self.start], [0]
        self.number, self.at, self.left_out = number + 1, source + 1, left_out
        return True

    def retrace(self, record: LogRecord) -> None:
        """One record of the target, from the first on."""
        source, _, left_out = _told(record)
        self.copied(source)
        self.left_out = left_out


def _told(record: LogRecord) -> tuple[int, int, int]:
    """Offset in the original, number and left out, as the headers say. Raises LogError."""
    where = f"{record.topic}/{record.partition}/{record.offset}"
    headers: Mapping[str, bytes] = record.headers
    try:
        source = int(headers[SOURCE].rpartition(b"/")[2])
        number, left_out = map(int, headers[NUMBER].split(b"/"))
    except (KeyError, ValueError):
        raise LogError(f"{where} was not written by a replay: replay to another prefix") from None
    if number != record.offset:
        raise LogError(
            f"{where} is number {number} of its partition: a record before it was lost when the "
            "broker went away; replay to another prefix"
        )
    return source, number, left_out
