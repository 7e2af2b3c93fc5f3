"""The newest records of each topic, to be looked at as they come. Safe between threads.

The reader puts records into rings, requests read them with a cursor of their own: a number that
grows with every record of the topic, and with every restart. Nobody waits for anybody: what left a
ring before a viewer had it is counted as skipped. A record becomes JSON when the first viewer asks
for it, once.
"""

from __future__ import annotations

from collections import deque
import threading
from typing import Any

import msgspec

from services.dashboard.masking import cut, masked
from services.dashboard.settings import Settings
from tailrace import topics
from tailrace.errors import InvalidRecord
from tailrace.events import Struct
from tailrace.log.base import LogRecord
from tailrace.reading import as_document
from tailrace.topics import Topic

FIRST = 50
"""Records that a viewer without a cursor is given at once."""
_FIELD_CHARS = 4096
"""Where a record is cut, each of its texts is at most so long."""
Event = Struct | InvalidRecord | None


class _Kept(msgspec.Struct):
    record: LogRecord
    event: Event
    size_bytes: int
    json: bytes | None = None


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """What a viewer is given next."""

    rows: list[tuple[int, bytes]]
    """Cursor and JSON object of each record that its filter lets through."""
    skipped: int
    """Records that were gone before it asked."""
    cursor: int
    """Of the last record that was looked at."""
    more: bool
    """Others are there already."""


class Tail:
    """The ring of one topic."""

    def __init__(self, topic: Topic, settings: Settings, base: int = 0) -> None:
        """``base``: cursors begin after it; more than any of those before a restart."""
        self.topic = topic
        self._settings = settings
        self._personal = topic.by_session or topic is topics.DEAD_LETTERS
        self._lock = threading.Lock()
        self._ring: deque[_Kept] = deque()
        self._bytes = 0
        self._base = self._last = base
        """Cursor of the newest record."""

    def put(self, record: LogRecord, event: Event) -> None:
        """The next record."""
        size = len(record.value or b"") + 200
        with self._lock:
            self._last += 1
            self._ring.append(_Kept(record, event, size))
            self._bytes += size
            while len(self._ring) > 1 and (
                len(self._ring) > self._settings.tail_records
                or self._bytes > self._settings.tail_bytes
            ):
                gone = self._ring.popleft()
                self._bytes -= gone.size_bytes + len(gone.json or b"")

    def after(self, cursor: int | None, words: list[str], most: int = 100) -> Page:
        """The next records after a cursor (None: the newest ones), filtered; looks at ``most``.

        A cursor from before a restart is worth nothing: it starts with the newest again.
        """
        with self._lock:
            first = self._last - len(self._ring) + 1
            if cursor is None or not self._base <= cursor <= self._last:
                cursor = max(first, self._last - FIRST + 1) - 1
            skipped = max(0, first - cursor - 1)
            begin = max(first, cursor + 1)
            at = begin - first
            kept = [self._ring[n] for n in range(at, min(len(self._ring), at + most))]
            last = self._last
        rows = []
        for number, one in enumerate(kept, begin):
            encoded = one.json or self._json(one)
            with self._lock:
                if one.json is None:
                    one.json = encoded
                    if number > self._last - len(self._ring):
                        self._bytes += len(encoded)
            if not words or _has(encoded, words):
                rows.append((number, encoded))
        end = begin + len(kept) - 1
        return Page(rows=rows, skipped=skipped, cursor=max(end, cursor), more=end < last)

    def _json(self, one: _Kept) -> bytes:
        document: Any = as_document((one.record, one.event))
        document["topic"] = self.topic.name
        document["time"] = one.record.time_ms
        if self._settings.mask_content and self._personal:
            document = masked(document)
        encoded = msgspec.json.encode(document)
        if len(encoded) > self._settings.tail_record_bytes:
            document, _ = cut(document, _FIELD_CHARS)
            encoded = msgspec.json.encode({**document, "cut": True})
        return encoded


def _has(encoded: bytes, words: list[str]) -> bool:
    text = encoded.decode().casefold()
    return all(word in text for word in words)
