"""What the shell asks the brokers itself: committed offsets, ends, and what lies in a gap.

Faust's own book-keeping moves on even when a commit failed, and it cannot see control records.
Blocking calls; the shell runs them on a thread.
"""

from __future__ import annotations

from collections.abc import Iterable
import time

from services.rewards.ticks import INPUTS
from tailrace.log.base import Log

KINDS = (*INPUTS, "ticks")
_PROBE_S = 10.0


class Offsets:
    """Offsets of one consumer group on the four topics of a prefix."""

    def __init__(self, log: Log, group: str, prefix: str) -> None:
        self._log = log
        self._prefix = prefix
        # It asks and never subscribes, so the group does not know of it.
        self._consumer = log.consumer(group=group)

    def committed(self, partitions: Iterable[int]) -> dict[int, dict[str, int]]:
        """By partition and kind: where reading goes on (committed, else the low watermark)."""
        wanted = sorted(partitions)
        found: dict[int, dict[str, int]] = {partition: {} for partition in wanted}
        for kind in KINDS:
            topic = self._prefix + kind
            starts = self._log.starts(topic)
            committed = self._consumer.committed(topic, wanted)
            for partition in wanted:
                low = starts[partition]
                found[partition][kind] = max(low, committed.get(partition, low))
        return found

    def ends(self) -> dict[int, dict[str, int]]:
        """By partition and input: one past the newest record."""
        found: dict[int, dict[str, int]] = {}
        for kind in INPUTS:
            for partition, end in self._log.ends(self._prefix + kind).items():
                found.setdefault(partition, {})[kind] = end
        return found

    def gap_end(self, kind: str, partition: int, start: int, end: int) -> int:
        """How far from ``start`` there is nothing to read, at most to ``end``."""
        topic = self._prefix + kind
        consumer = self._log.consumer()
        try:
            consumer.assign({(topic, partition): start})
            give_up = time.monotonic() + _PROBE_S
            while time.monotonic() < give_up:
                records = consumer.poll(0.5, max_records=1)
                if records:
                    return min(end, max(start, records[0].offset))
                if consumer.position(topic, partition) >= end:
                    return end
            return start
        finally:
            consumer.close()

    def close(self) -> None:
        """Let go of the consumer."""
        self._consumer.close()
