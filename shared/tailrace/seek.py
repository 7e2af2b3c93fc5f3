"""Single records by where they lie, without reading what is between them."""

from __future__ import annotations

from collections.abc import Iterable
import time

from tailrace.errors import LogError
from tailrace.log.base import Log, LogRecord

Spot = tuple[str, int, int]
"""Topic (its full name), partition, offset."""
_READ_TIMEOUT_S = 30.0


def records_at(log: Log, spots: Iterable[Spot]) -> dict[Spot, LogRecord]:
    """The first record that there is at each spot or after it; none at the end of a partition.

    What lies exactly at a spot may be gone, or be a transaction's mark: compare offsets. Raises
    LogError when the log gives nothing of what it has for half a minute.
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
            give_up = time.monotonic() + _READ_TIMEOUT_S
            while spot not in found and consumer.position(topic, partition) < end:
                for record in consumer.poll(0.5, max_records=1):
                    found.setdefault(spot, record)
                if spot not in found and time.monotonic() > give_up:
                    raise LogError(f"{topic}/{partition}/{at} does not come")
    finally:
        consumer.close()
    return found
