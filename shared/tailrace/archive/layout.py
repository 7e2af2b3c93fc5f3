"""How a partition is written so that each record has its own offset again. Pure.

In: the records of an archive. Out: acts of a writer, in order; each says where it begins and how
far the partition is after it. What lay between two records decides:

- one offset: the control record of a transaction; the record before it is committed in one;
- more, of a topic that is read committed: a transaction that was aborted, of void records and the
  control record at its end;
- more, of a topic that is read uncommitted: nothing that readers pass over can stand there, so this
  is refused.

What lay before the first record is gone: void records, deleted in the end. So is what lay before
records that expired between two runs of ``archive``: the low watermark of the log was there too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tailrace.archive.segment import Saved
from tailrace.archive.shelf import Partition


class Act(NamedTuple):
    """``put`` a record; ``commit`` one in a transaction; ``void`` records to be deleted; ``abort``
    void records in a transaction."""

    what: str
    start: int
    end: int
    record: Saved | None = None


def acts(
    where: str, part: Partition, records: Iterator[Saved], *, transactional: bool
) -> Iterator[Act]:
    """What makes a partition. Raises ValueError, naming the place, where nothing does."""
    before: Saved | None = None
    at = 0
    for record in begun(part, records):
        yield from _gap(where, before, at, record.offset, transactional)
        before, at = record, record.offset + 1
    yield from _gap(where, before, at, part.end, transactional)


def begun(part: Partition, records: Iterator[Saved]) -> Iterator[Saved]:
    """Those records of a partition that come back: from the newest that expired unseen on."""
    first = part.lost[-1][1] if part.lost else part.start
    return (record for record in records if record.offset >= first)


def _gap(where: str, before: Saved | None, at: int, to: int, transactional: bool) -> Iterator[Act]:
    """The record before a gap ``[at, to)``, and the gap."""
    gap = to - at
    if before is None:
        if gap:
            yield Act("void", at, to)
    elif gap == 1:
        yield Act("commit", before.offset, to, before)
    else:
        yield Act("put", before.offset, at, before)
        if gap and not transactional:
            raise ValueError(
                f"{where}: nothing was between offsets {at - 1} and {to}, of a topic whose readers "
                "pass over no more than one offset at a time"
            )
        if gap:
            yield Act("abort", at, to)
