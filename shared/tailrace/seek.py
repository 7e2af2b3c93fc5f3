"""Single records by where they lie, without reading what is between them."""

from __future__ import annotations

from collections.abc import Iterable

from tailrace.ends import to_ends
from tailrace.log.base import Log, LogRecord

Spot = tuple[str, int, int]
"""Topic (its full name), partition, offset."""


def records_at(log: Log, spots: Iterable[Spot]) -> dict[Spot, LogRecord]:
    """The first record that there is at each spot or after it; none at the end of a partition.

    What lies exactly at a spot may be gone, or be a transaction's mark: compare offsets. Raises
    LogError when the log gives nothing of what it has, see :mod:`tailrace.ends`.
    """
    found: dict[Spot, LogRecord] = {}
    bounds: dict[str, tuple[dict[int, int], dict[int, int]]] = {}
    consumer = log.consumer()
    try:
        for spot in dict.fromkeys(spots):
            topic, partition, offset = spot
            if topic not in bounds:
                bounds[topic] = log.starts(topic), log.ends(topic)
            starts, ends = bounds[topic]
            end = ends.get(partition, 0)
            at = max(offset, starts.get(partition, 0))
            if at >= end:
                continue
            consumer.assign({(topic, partition): at})
            for records in to_ends(consumer, {(topic, partition): end}, max_records=1):
                if records:
                    found[spot] = records[0]
                    break
    finally:
        consumer.close()
    return found
