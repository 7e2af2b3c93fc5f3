"""From the spool to Kafka, in order. Pure but for the link.

The feedback of one session keeps its order: a value behind its retraction would stand for ever.
So it is sent in waves, in each at most one feedback of a session, and a wave begins when the one
before it was acknowledged; after an append that failed (a later one may have got through all the
same) the rest of its session waits. Prompts and outputs have no order to keep.

In: the oldest rows. Out: what became of each. Called by :mod:`services.gateway.capture`.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.gateway.link import Link
from services.gateway.spool import Row
from tailrace import topics
from tailrace.errors import InvalidRecord, TooLarge
from tailrace.events import Feedback
from tailrace.log.base import Position


async def append(link: Link, rows: Sequence[Row]) -> list[tuple[Row, Position | BaseException]]:
    """Append the rows to Kafka and wait for it: what became of each that was tried."""
    tried: list[tuple[Row, Position | BaseException]] = []
    held: set[str] = set()
    for wave in waves(rows):
        wave = [row for row in wave if _line(row) not in held]
        for row, result in zip(wave, await link.write_all(wave), strict=True):
            tried.append((row, result))
            line = _line(row)
            if line is not None and isinstance(result, BaseException) and not _never(result):
                held.add(line)
    return tried


def waves(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows, in waves of at most one feedback a session; in each session in their order."""
    found: list[list[Row]] = []
    seen: dict[str, int] = {}
    for row in rows:
        line = _line(row)
        number = 0
        if line is not None:
            number = seen.get(line, 0)
            seen[line] = number + 1
        if number == len(found):
            found.append([])
        found[number].append(row)
    return found


def _line(row: Row) -> str | None:
    """Among which rows the order of this one matters: the feedback of its session."""
    if row.topic is not topics.FEEDBACK:
        return None
    assert isinstance(row.record, Feedback)
    # Not ids.session_of: a row that is malformed is refused by the append, not here.
    return row.record.feedback_id.partition("!")[0].partition("~")[0]


def _never(error: BaseException) -> bool:
    """Whether the log refuses the record for ever; nothing has to wait for it then."""
    return isinstance(error, InvalidRecord | TooLarge)
