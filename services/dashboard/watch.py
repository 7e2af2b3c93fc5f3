"""Alarms, writers and topics. Pure.

In: every record, with its event where it could be read. Out: the sections ``alarms``,
``processes``, and the topics of ``traffic``.
"""

from __future__ import annotations

from collections import Counter, deque

import msgspec

from services.dashboard import system
from services.dashboard.bounded import Memory
from services.dashboard.intervals import rounded
from services.dashboard.rate import Rate
from services.dashboard.settings import Settings
from services.dashboard.system import Alarms, Process, Processes, TopicFlow
from tailrace import events
from tailrace.log.base import LogRecord
from tailrace.topics import Topic

_WRITERS = 40
_OPEN = 200
_SILENT_MS = 60_000
_RATE_S = 10
_NAME_CHARS = 60
_TEXT_CHARS = 500


class Watched:
    """Alarms: which are open, and the newest."""

    def __init__(self, settings: Settings, drops: Counter[str]) -> None:
        self.dirty = True
        self._open: Memory[tuple[str, str | None], system.Alarm] = Memory(
            _OPEN, drops, "open alarm forgotten"
        )
        self._recent: deque[system.Alarm] = deque(maxlen=settings.alarms_shown)
        self._fired = 0

    def alarm(self, event: events.Alarm, time_ms: int) -> None:
        """One fired or cleared. The trainer's say again that they fire: the first time counts."""
        self.dirty = True
        key = (event.stream, event.detector)
        alarm = system.Alarm(
            stream=event.stream[:_TEXT_CHARS],
            detector=event.detector,
            state=event.state,
            time_ms=time_ms,
            value=rounded(event.value),
            baseline=rounded(event.baseline),
            message=event.message and event.message[:_TEXT_CHARS],
        )
        self._recent.append(alarm)
        if event.state == "fired":
            self._fired += 1
            self._open.put(key, alarm)
        else:
            self._open.pop(key, None)

    def section(self) -> Alarms:
        """As it is now."""
        self.dirty = False
        opened = sorted(self._open.values(), key=lambda alarm: -alarm.time_ms)
        return Alarms(open=opened, recent=list(reversed(self._recent)), fired=self._fired)


class _Writer(msgspec.Struct):
    time_ms: int
    topic: str
    records: int = 0
    longest_ms: int = 0
    """The longest that it was ever silent."""


class Writers:
    """Who writes, by the CloudEvents source of records."""

    def __init__(self, drops: Counter[str]) -> None:
        self._drops = drops
        self._writers: dict[str, _Writer] = {}

    def record(self, record: LogRecord, topic: str) -> None:
        """One record of any topic."""
        source = record.headers.get("ce_source")
        if source is None:
            return
        name = source.decode(errors="replace").removeprefix("/tailrace/")[:_NAME_CHARS]
        writer = self._writers.get(name)
        if writer is None:
            if len(self._writers) >= _WRITERS:
                del self._writers[min(self._writers, key=lambda n: self._writers[n].time_ms)]
                self._drops["writer beyond those that are listed"] += 1
            writer = self._writers[name] = _Writer(record.time_ms, topic)
        writer.records += 1
        if record.time_ms >= writer.time_ms:
            writer.longest_ms = max(writer.longest_ms, record.time_ms - writer.time_ms)
            writer.time_ms, writer.topic = record.time_ms, topic

    def section(self, now_ms: int) -> Processes:
        """As it is now; ``now_ms`` by the dashboard's clock."""
        return Processes(
            writers=[
                Process(
                    name=name,
                    time_ms=one.time_ms,
                    topic=one.topic,
                    records=one.records,
                    silent=now_ms - one.time_ms > max(_SILENT_MS, one.longest_ms),
                )
                for name, one in sorted(self._writers.items())
            ]
        )


class Flow:
    """One topic."""

    def __init__(self, topic: Topic) -> None:
        self.topic = topic
        self.records = self.unreadable = 0
        self.newest_ms: int | None = None
        self.missing = False
        self._rate = Rate(_RATE_S)

    def record(self, time_ms: int, readable: bool) -> None:
        """One record of it."""
        self.records += 1
        self.unreadable += not readable
        self.newest_ms = max(self.newest_ms or 0, time_ms)
        self._rate.add(time_ms)

    def row(self, now_ms: int) -> TopicFlow:
        """As it is now; ``now_ms`` by the dashboard's clock."""
        return TopicFlow(
            topic=self.topic.name,
            records=self.records,
            per_s=rounded(self._rate.per_s(now_ms), 3) or 0.0,
            unreadable=self.unreadable,
            time_ms=self.newest_ms,
            missing=self.missing,
        )
