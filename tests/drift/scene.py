"""A log in memory under a clock in the test's hand, and how a reader of alarms drops repeats."""

from __future__ import annotations

from services.drift.bank import Bank
from services.drift.drift import Drift
from tailrace import events, topics
from tailrace.log.memory import MemoryLog
from tailrace.stream import Decoder, Writer, read_all
from tailrace.wire import Wire
from tests.drift import script

WIRE = Wire()


class Scene:
    """A log in memory with a clock in the test's hand."""

    def __init__(self, folder) -> None:
        self.now_ms = 1_000_000
        self.folder = folder
        self.log = MemoryLog(clock_ms=lambda: self.now_ms)
        self.log.create(topics.TOPICS, prefix="p.", session_partitions=3)
        self.producer = self.log.producer()
        self.writer = Writer(self.producer, WIRE, prefix="p.")

    def write(self, topic, record) -> None:
        self.now_ms += 5
        self.writer.write(topic, record)

    def fill(self) -> None:
        for topic, record in script.records():
            self.write(topic, record)

    def drift(self, bank: Bank | None = None, **options) -> Drift:
        return Drift(
            self.log,
            Decoder(self.log, WIRE, prefix="p."),
            Writer(self.log.producer(), WIRE, prefix="p."),
            bank or Bank(),
            self.folder,
            prefix="p.",
            clock_ms=lambda: self.now_ms,
            **options,
        )

    def finish(self, drift: Drift) -> None:
        """Let it read all there is."""
        self.now_ms += 60_000
        while drift.step(0.0) or not drift.caught_up:
            pass
        for _ in range(3):
            drift.step(0.0)

    def alarms(self) -> list[events.Alarm]:
        found = read_all(self.log, "p.alarms")
        return [WIRE.decode(events.Alarm, record.value) for record in found]


def without_repeats(alarms: list[events.Alarm]) -> list[events.Alarm]:
    """As the docstring of services.drift says a reader may."""
    known: dict[tuple, events.Alarm] = {}
    for alarm in alarms:
        identity = (alarm.stream, alarm.detector, alarm.state, alarm.source)
        assert known.setdefault(identity, alarm) == alarm
    return list(known.values())
