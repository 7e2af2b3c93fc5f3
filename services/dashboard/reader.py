"""Reads all topics into the board and publishes the picture. Owns the log; one thread.

    start ─> manifests, releases ─> what people and services wrote ─> receipts, steps ─> all of it
             (from the beginning)   (from a bounded time back)        until the process ends

The order of the start makes that what is said of a record comes after it. Nothing is committed and
no group joined: a restart reads the same stretch again. When the log fails, the picture stands
still and says so, and reading goes on where it was once the log answers: with the very record that
could not be read without it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
import logging
import threading
import time

from services.dashboard import metrics
from services.dashboard.board import READ, Board
from services.dashboard.feed import Feed
from services.dashboard.places import Place, Places
from services.dashboard.settings import Settings
from services.dashboard.system import Account, Lags
from services.dashboard.tailing import Event
from tailrace import topics
from tailrace.errors import InvalidRecord, LogError, MissingTopic, UnknownSchema, UpdateRefused
from tailrace.log.base import Consumer, Log, LogRecord
from tailrace.stream import Decoder
from tailrace.topics import Topic, named
from tailrace.weights.trust import Trust
from tailrace.wire import Wire

_log = logging.getLogger(__name__)
_ORIGINS = (topics.MODEL_UPDATES, topics.RELEASES)
_RESULTS = (topics.RECEIPTS, topics.STEPS)
_FOR_EVER = (topics.MODEL_UPDATES, topics.RELEASES, topics.STEPS, topics.CONTROL, topics.SCHEMAS)
_POLL_S = 0.05
_LEARN_S = 1.0
"""How often a schema that nobody knows is looked for: foreign bytes may name any."""
_AGAIN_S = 1.0
_QUIET_S = 2.0
_MOST = 500


class Reader:
    """One log into one board. ``now_ms``: wall clock; ``clock``: seconds that only grow."""

    def __init__(
        self,
        settings: Settings,
        log: Log,
        board: Board,
        feed: Feed,
        places: Places,
        *,
        now_ms: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises SettingsError for a trusted key file that is none."""
        self._settings, self._log, self._places = settings, log, places
        self.board, self.feed = board, feed
        self._now_ms, self._clock = now_ms, clock
        self._wire = Wire(settings.registry)
        self._decoder = Decoder(log, self._wire, prefix=settings.prefix)
        self._trust = Trust(settings.trusted_keys) if settings.trusted_keys else None
        self._rows = {named(topic, settings.prefix): topic for topic in READ}
        self._positions: dict[Place, int] = {}
        """What is read next, of every partition that was begun."""
        self._owners: dict[Place, Consumer] = {}
        """Who reads a partition now."""
        self._rest: deque[LogRecord] = deque()
        """Polled and not taken yet: the log may fail in the middle, when a schema is asked for."""
        self._learnt_s = self._refreshed_s = float("-inf")
        self._error: str | None = None
        self._at_end = False
        self.caught_up = False
        """All that was on the log at the start is in the picture that is published."""

    def run(self, stop: threading.Event) -> None:
        """Read until ``stop``."""
        while not stop.is_set():
            try:
                self._read(stop)
            except LogError as error:
                if self._error != str(error):
                    _log.warning("log failed error=%s", error)
                self._error = str(error)
                metrics.LOG_ERRORS.inc()
                self.refresh()
                stop.wait(_AGAIN_S)

    def catch_up(self) -> None:
        """Read what is on the log now, and publish. Raises LogError."""
        self._read(threading.Event(), follow=False)
        self.refresh()

    def _read(self, stop: threading.Event, follow: bool = True) -> None:
        """To the end of now; then on until ``stop``, or until a topic appears that was missing."""
        loose, committed = self._log.consumer(), self._log.consumer(committed_only=True)
        try:
            self._begin()
            self._take_rest()
            self._error = None
            self._to_end(committed, _ORIGINS, stop)
            self._to_end(loose, [t for t in READ if not t.transactional], stop)
            self._to_end(committed, (*_ORIGINS, *_RESULTS), stop)
            self._at_end = not stop.is_set()
            while follow and not stop.is_set() and not self._appeared():
                if self._poll(loose, _POLL_S) < _MOST:
                    self._poll(committed, 0.0)
                self._maybe_refresh()
        finally:
            for place, owner in self._owners.items():
                self._positions[place] = owner.position(*place)
            self._owners = {}
            loose.close()
            committed.close()

    def _appeared(self) -> bool:
        return any(
            flow.missing and (named(topic, self._settings.prefix), 0) in self._places.known.ends
            for topic, flow in self.board.flows.items()
        )

    def _begin(self) -> None:
        """Where reading starts, of each topic that was not begun."""
        since_ms: int | None = None
        for name, topic in self._rows.items():
            if (name, 0) in self._positions:
                continue
            flow = self.board.flows[topic]
            try:
                starts = self._log.starts(name)
                if topic not in _FOR_EVER:
                    since_ms = self._since_ms() if since_ms is None else since_ms
                    starts = self._log.offsets_at(name, since_ms)
            except MissingTopic:
                flow.missing = True
                continue
            flow.missing = False
            for partition, start in starts.items():
                self._positions[name, partition] = start
                self.board.begin(topic, partition, start)

    def _since_ms(self) -> int:
        """The time from which session topics are read: as far back as the settings allow."""
        span_s = self._settings.history_s
        names = [name for name, t in self._rows.items() if t.by_session]
        now_ms = self._now_ms()
        while span_s > 1.0:
            since_ms = now_ms - int(span_s * 1000)
            if all(self._count(name, since_ms) <= self._settings.history_records for name in names):
                break
            span_s /= 2
        return now_ms - int(span_s * 1000)

    def _count(self, name: str, since_ms: int) -> int:
        try:
            starts, ends = self._log.offsets_at(name, since_ms), self._log.ends(name)
        except MissingTopic:
            return 0
        return sum(ends[p] - starts[p] for p in ends)

    def _to_end(self, consumer: Consumer, rows: Iterable[Topic], stop: threading.Event) -> None:
        """Assign topics and read them as far as they go now. What hangs behind a transaction that
        somebody left open is read later, with the rest."""
        names = [named(topic, self._settings.prefix) for topic in rows]
        names = [name for name in names if (name, 0) in self._positions]
        ends = {(name, p): end for name in names for p, end in self._log.ends(name).items()}
        if not ends:
            return
        low = {name: self._log.starts(name) for name in names}
        consumer.assign({(n, p): max(self._at((n, p)), low[n][p]) for n, p in ends})
        self._owners |= dict.fromkeys(ends, consumer)
        quiet_s = self._clock()
        while not stop.is_set() and self._clock() - quiet_s < _QUIET_S:
            if all(consumer.position(*place) >= end for place, end in ends.items()):
                return
            if self._poll(consumer, _POLL_S):
                quiet_s = self._clock()
            self._maybe_refresh()

    def _poll(self, consumer: Consumer, timeout_s: float) -> int:
        self._rest.extend(consumer.poll(timeout_s, max_records=_MOST))
        return self._take_rest()

    def _take_rest(self) -> int:
        """How many. Raises LogError; what was not taken is then taken first the next time."""
        count = len(self._rest)
        try:
            while self._rest:
                record = self._rest[0]
                topic = self._rows[record.topic]
                event = self._event(topic, record)
                self._rest.popleft()
                self.board.on_record(topic, record, event)
        finally:
            metrics.RECORDS.inc(count - len(self._rest))
        return count

    def _event(self, topic: Topic, record: LogRecord) -> Event:
        if topic.record is None:
            return None
        if topic is topics.MODEL_UPDATES and self._trust is not None:
            try:
                self._trust.check(record.value, record.headers)
            except UpdateRefused as error:
                self.board.drops[f"manifest that no trusted key signed: {error.reason}"] += 1
                return InvalidRecord(error.reason, error.detail)
        try:
            return self._wire.decode(
                topic.record, record.value, record.headers, time_ms=record.time_ms
            )
        except UnknownSchema as error:
            if self._clock() - self._learnt_s < _LEARN_S:
                return error
            unknown = error
        except InvalidRecord as error:
            return error
        event: Event
        try:
            event = self._decoder.decode(record)
        except MissingTopic:
            event = unknown  # without the topic of schemas nobody knows it
        except InvalidRecord as error:
            event = error
        self._learnt_s = self._clock()
        return event

    def _behind(self) -> int:
        """Records that were on the log when it was last asked and are not read."""
        behind = len(self._rest)
        for place, end in self._places.known.ends.items():
            if place in self._positions:
                behind += max(0, end - self._at(place))
        return behind

    def _at(self, place: Place) -> int:
        owner = self._owners.get(place)
        return self._positions[place] if owner is None else owner.position(*place)

    def _maybe_refresh(self) -> None:
        if self._clock() - self._refreshed_s >= self._settings.refresh_s:
            self.refresh()

    def refresh(self) -> None:
        """Publish what changed."""
        self._refreshed_s = self._clock()
        now_ms = self._now_ms()
        sections = self.board.sections(now_ms)
        traffic = self.board.traffic(now_ms)
        known = self._places.known
        traffic.caught_up, traffic.behind = self._at_end, self._behind()
        traffic.broker = self._error or known.error
        traffic.viewers, traffic.skipped = self.feed.viewers, self.feed.skipped
        sections["traffic"] = traffic
        sections["lag"] = Lags(
            consumers=[*known.groups, *self.board.lags(known.ends)], time_ms=known.time_ms
        )
        metrics.PUBLISHED_BYTES.inc(self.feed.publish(sections))
        self.caught_up = traffic.caught_up
        metrics.REFRESH_S.observe(self._clock() - self._refreshed_s)
        metrics.BEHIND.set(traffic.behind)
        metrics.VIEWERS.set(traffic.viewers)
        account = sections["account"]
        assert isinstance(account, Account)
        metrics.accounted(account)
