"""Reads the log from now on, for whoever watches a running system: the demo's picture.

One thread, no group, nothing committed. Transactional topics are read committed.
"""

from __future__ import annotations

from tailrace import topics
from tailrace.errors import InvalidRecord
from tailrace.events import Struct
from tailrace.log.base import Log, LogRecord
from tailrace.stream import Decoder
from tailrace.topics import named
from tailrace.wire import Wire

WATCHED = (
    topics.PROMPTS,
    topics.OUTPUTS,
    topics.FEEDBACK,
    topics.TRAJECTORIES,
    topics.MODEL_ACKS,
    topics.ALARMS,
    topics.DEAD_LETTERS,
    topics.RECEIPTS,
    topics.STEPS,
    topics.MODEL_UPDATES,
)


class Watch:
    """Every record that is appended after this object was made."""

    def __init__(self, log: Log, *, prefix: str = "", registry: str | None = None) -> None:
        self._decoder = Decoder(log, Wire(registry), prefix=prefix)
        self._raw = {named(topics.DEAD_LETTERS, prefix)}
        self._consumers = []
        for transactional in (False, True):
            consumer = log.consumer(committed_only=transactional)
            names = [named(t, prefix) for t in WATCHED if t.transactional == transactional]
            consumer.assign({(n, p): end for n in names for p, end in log.ends(n).items()})
            self._consumers.append(consumer)

    def poll(self, timeout_s: float) -> list[tuple[LogRecord, Struct | None]]:
        """What is new, decoded; None in place of what is raw bytes or cannot be read."""
        found: list[tuple[LogRecord, Struct | None]] = []
        for consumer in self._consumers:
            for record in consumer.poll(timeout_s / len(self._consumers)):
                event = None
                if record.topic not in self._raw:
                    try:
                        event = self._decoder.decode(record)
                    except InvalidRecord:
                        pass  # no receipt is lost by it: the audit accounts for it
                found.append((record, event))
        return found

    def close(self) -> None:
        """Let go."""
        for consumer in self._consumers:
            consumer.close()
