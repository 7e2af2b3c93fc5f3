"""Writes a stretch under another prefix, at full speed or in the pace of its time.

Where it is lies in the target alone: every copied record says where it came from, and in a
partition the n-th copied record has the offset n. So whoever goes on asks each partition for its
last record; nothing is copied twice, and a record that was lost when a broker went away is found
by its number.
"""

from __future__ import annotations

from collections.abc import Callable
import heapq
import math
import time

import msgspec

from tailrace import topics
from tailrace.errors import InvalidRecord, LogError
from tailrace.events import Prompt, Tick
from tailrace.log.base import Log, LogRecord, Producer
from tailrace.replaying.filters import Filters
from tailrace.replaying.lane import NUMBER, Lane
from tailrace.replaying.merge import AHEAD_BYTES, Key, Merge
from tailrace.replaying.plan import COPIED, SOURCE, TIME, Done, Plan, end, time_of
from tailrace.stream import Decoder, read_all
from tailrace.topics import named
from tailrace.wire import Wire

_FLUSH = 20_000
_FLUSH_BYTES = 64 * 1024 * 1024
_FLUSH_S = 90.0
"""Longer than a producer waits for its broker: so it is that which says what is wrong."""


class Progress(msgspec.Struct, kw_only=True):
    """How far a replay is."""

    behind: int = 0
    """Offsets of the stretch that are behind it, of all partitions."""
    total: int = 0
    copied: int = 0
    """By this run."""
    time_ms: int = 0
    """Original time of the newest record."""


class Replayer:
    """One replay. ``speed``: how many times as fast as it was; None: as fast as it goes. ``say`` is
    called every some thousand records, and before each wait."""

    def __init__(
        self,
        log: Log,
        plan: Plan,
        prefix: str,
        *,
        speed: float | None = None,
        registry: str | None = None,
        say: Callable[[Progress], None] = lambda progress: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        ahead_bytes: int = AHEAD_BYTES,
    ) -> None:
        """``ahead_bytes``: bound of what is read before its turn. Raises ValueError for a filter
        that is none."""
        self._log, self._plan, self._prefix = log, plan, prefix
        self._speed, self._say, self._clock, self._sleep = speed, say, clock, sleep
        self._ahead_bytes = ahead_bytes
        self._wire = Wire(registry)
        self._decoder = Decoder(log, self._wire, prefix=plan.source)
        self._filters = Filters(plan.filters)
        self._ticks = named(topics.TICKS, plan.source)
        self._targets = {named(t, plan.source): named(t, prefix) for t in COPIED}
        self._lanes = {
            (plan.source + name, partition): Lane(offset, plan.ends[name][partition])
            for name, offsets in plan.starts.items()
            for partition, offset in offsets.items()
        }
        self._begun: tuple[float, int] | None = None
        self._unflushed, self._unflushed_bytes = 0, 0
        total = sum(lane.end - lane.start for lane in self._lanes.values())
        self.progress = Progress(total=total)

    def run(self) -> Done:
        """Copy what is not copied yet. Raises LogError, after which a new one goes on; ValueError
        where what is left has expired meanwhile."""
        for topic in self._targets:
            self._resume(topic)
        self._refuse_expired()
        if self._filters.by_prompt:
            self._look()
        self.progress.behind = sum(lane.at - lane.start for lane in self._lanes.values())
        starts = {key: lane.at for key, lane in self._lanes.items()}
        ends = {key: lane.end for key, lane in self._lanes.items()}
        producer = self._log.producer()
        merge = Merge(self._log, starts, ends, ahead_bytes=self._ahead_bytes)
        try:
            self._copy(merge, producer)
            producer.flush(_FLUSH_S)
        finally:
            merge.close()
            producer.close()
        self._refuse_expired()
        done = self.counts()
        end(self._log, self._prefix, done)
        self.progress.behind = self.progress.total
        self._say(self.progress)
        return done

    def counts(self) -> Done:
        """What is in the target, and what was left out."""
        records, left_out = (dict.fromkeys((topic.name for topic in COPIED), 0) for _ in range(2))
        for (topic, _), lane in self._lanes.items():
            name = topic.removeprefix(self._plan.source)
            records[name] += lane.number
            left_out[name] += lane.left_out
        return Done(records=records, left_out=left_out)

    def _copy(self, merge: Merge, producer: Producer) -> None:
        queue: list[tuple[int, Key]] = []
        for key in self._lanes:
            if (record := merge.head(key)) is not None:
                queue.append((self._time(record), key))
        heapq.heapify(queue)
        while queue:
            _, key = queue[0]
            # A tick may have pulled records of this partition before their turn.
            if (record := merge.head(key)) is not None:
                next_ms = min((t for t, _ in queue[1:3]), default=math.inf)
                while record is not None and self._time(record) <= next_ms:
                    self._put(merge, producer, key, record)
                    record = merge.head(key)
            if record is None:
                heapq.heappop(queue)
            else:
                heapq.heapreplace(queue, (self._time(record), key))

    def _put(self, merge: Merge, producer: Producer, key: Key, record: LogRecord) -> None:
        """Copy the next record of a partition; before a tick, all that its ends want."""
        topic, partition = key
        lane = self._lanes[key]
        tick = self._tick(record) if topic == self._ticks else None
        for kind, wanted in tick.ends.items() if tick is not None else ():
            other = (self._plan.source + kind, partition)
            if other not in self._lanes:
                continue
            feed = self._lanes[other]
            while feed.at < min(wanted, feed.end):
                before = merge.head(other)
                if before is None or before.offset >= wanted:
                    break
                self._put(merge, producer, other, before)
        merge.take(key)
        if record.offset != lane.at:
            self._refuse_expired(key)
        self.progress.behind += record.offset + 1 - lane.at
        lane.at = record.offset + 1
        time_ms = self._time(record)
        if self._plan.by_header and not self._within(time_ms):
            return
        if tick is None and not (topic == self._ticks or self._filters.takes(record.key)):
            lane.left_out += 1
            return
        if self._speed is not None:
            self._wait(time_ms, self._speed)
        value = record.value if tick is None else self._wire.encode(self._moved(tick, partition))
        headers = dict(record.headers)
        headers[TIME] = b"%d" % time_ms
        headers[SOURCE] = f"{topic}/{partition}/{record.offset}".encode()
        headers[NUMBER] = lane.mark()
        target = self._targets[topic]
        producer.append(target, value, key=record.key, partition=partition, headers=headers)
        lane.copied(record.offset)
        self.progress.copied += 1
        self.progress.time_ms = time_ms
        self._unflushed += 1
        self._unflushed_bytes += len(value or b"")
        if self._unflushed >= _FLUSH or self._unflushed_bytes >= _FLUSH_BYTES:
            producer.flush(_FLUSH_S)
            self._unflushed = self._unflushed_bytes = 0
            self._say(self.progress)

    def _tick(self, record: LogRecord) -> Tick | None:
        """None: what cannot be read is copied as it is, and refused as it was."""
        try:
            tick = self._decoder.decode(record)
        except InvalidRecord:
            return None
        assert isinstance(tick, Tick)
        return tick

    def _moved(self, tick: Tick, partition: int) -> Tick:
        ends = {
            kind: self._lanes[self._plan.source + kind, partition].moved(offset)
            if (self._plan.source + kind, partition) in self._lanes
            else offset
            for kind, offset in tick.ends.items()
        }
        return msgspec.structs.replace(tick, ends=ends)

    def _wait(self, time_ms: int, speed: float) -> None:
        now_s = self._clock()
        if self._begun is None:
            self._begun = (now_s, time_ms)
        due_s = self._begun[0] + (time_ms - self._begun[1]) / 1000 / speed
        while now_s < due_s:
            self._say(self.progress)
            self._sleep(min(1.0, due_s - now_s))
            now_s = self._clock()

    def _time(self, record: LogRecord) -> int:
        return time_of(record.time_ms, record.headers, by_header=self._plan.by_header)

    def _within(self, time_ms: int) -> bool:
        since_ms, until_ms = self._plan.since_ms, self._plan.until_ms
        return (since_ms is None or time_ms >= since_ms) and (
            until_ms is None or time_ms < until_ms
        )

    def _look(self) -> None:
        """Which sessions the filters take, by the prompts of the whole stretch."""
        name = topics.PROMPTS.name
        topic = self._plan.source + name
        starts, ends = self._plan.starts[name], self._plan.ends[name]
        low = self._log.starts(topic)
        if any(low[p] > at and at < ends[p] for p, at in starts.items()):
            raise ValueError(f"{topic}: prompts by which sessions are chosen have expired")
        for record in read_all(self._log, topic, starts=starts, ends=ends):
            if self._plan.by_header and not self._within(self._time(record)):
                continue
            try:
                prompt = self._decoder.decode(record)
            except InvalidRecord:
                continue
            assert isinstance(prompt, Prompt)
            self._filters.seen(prompt)

    def _resume(self, topic: str) -> None:
        """Take up each partition where the target ends."""
        target = self._targets[topic]
        ends, low = self._log.ends(target), self._log.starts(target)
        if any(low[p] for p in low):
            raise LogError(f"{target}: what was copied has begun to expire")
        for record in read_all(self._log, target, starts={p: at - 1 for p, at in ends.items()}):
            key = (topic, record.partition)
            if self._lanes[key].resume(record):
                continue
            only = {p: ends[p] if p == record.partition else 0 for p in ends}
            for each in read_all(self._log, target, ends=only):
                self._lanes[key].retrace(each)

    def _refuse_expired(self, only: Key | None = None) -> None:
        for topic in self._targets if only is None else (only[0],):
            for partition, low in self._log.starts(topic).items():
                lane = self._lanes[topic, partition]
                if only in (None, (topic, partition)) and lane.at < min(low, lane.end):
                    raise ValueError(
                        f"{topic}/{partition}: offsets from {lane.at} to {low} have expired "
                        "before they were copied"
                    )
