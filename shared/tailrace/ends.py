"""Read to where partitions end, or say that it stalls. Whoever reads a fixed range does it by this.

A topic in transactions is read up to the first open one: where its producer was killed, the broker
aborts it a minute later, and only then does a committed reader get on. So nobody gives up before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
import time

from tailrace.errors import LogError
from tailrace.log.base import Consumer, LogRecord

STALL_S = 90.0
"""Longer than the broker keeps the transaction of a process that died open: 60 s."""
_POLL_S = 0.5


def to_ends(
    consumer: Consumer,
    ends: Mapping[tuple[str, int], int],
    *,
    max_records: int = 500,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[list[LogRecord]]:
    """What is polled until each (topic, partition), which the consumer has been given, is read to
    its end. The last polls may go beyond it.

    Raises LogError once no position moved for :data:`STALL_S` seconds of asking; what the caller
    does between two polls does not count. ``clock``: seconds, monotonic.
    """
    waited_s = 0.0
    while True:
        at = {key: consumer.position(*key) for key in ends}
        short = sorted(key for key, end in ends.items() if at[key] < end)
        if not short:
            return
        if waited_s > STALL_S:
            topic, partition = short[0]
            where = f"{topic}/{partition}/{at[short[0]]}"
            more = f" (nor do {len(short) - 1} more)" if short[1:] else ""
            raise LogError(f"{where} does not reach its end, {ends[short[0]]}{more}")
        asked_s = clock()
        records = consumer.poll(_POLL_S, max_records)
        moved = any(consumer.position(*key) != at[key] for key in ends)
        waited_s = 0.0 if moved else waited_s + clock() - asked_s
        yield records
