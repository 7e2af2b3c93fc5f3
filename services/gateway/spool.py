"""Records that could not reach Kafka yet: a bounded queue in an SQLite file (WAL).

In: records with their topic. Out: the oldest ones, in order, to be deleted once acknowledged.
``put`` returns when the rows are fsynced, so what it took survives a kill -9 and a power cut.
Prompts and outputs fill four fifths at most; the last fifth is for feedback, which was promised.
Rows are Avro single-object bytes, so a spool of an older version of tailrace still reads.
Not safe between threads at once: :mod:`services.gateway.disk` gives it a thread of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
import logging
from pathlib import Path
import sqlite3

import msgspec

from services.gateway import metrics
from tailrace import events, topics
from tailrace.errors import InvalidRecord
from tailrace.topics import Topic
from tailrace.wire import Wire

log = logging.getLogger(__name__)
_ROW_BYTES = 128
"""What a row costs beside its record."""
_BATCH_BYTES = 8 * 1024 * 1024


class Row(msgspec.Struct, frozen=True):
    """One spooled record."""

    number: int
    topic: Topic
    record: events.Struct
    traceparent: str | None = None


class Spool:
    """The spool of one gateway, in one file."""

    def __init__(self, file: Path, wire: Wire, *, max_bytes: int, wait_s: float = 5.0) -> None:
        """``wire`` without a registry: the rows must be readable when nothing else is there.

        Raises sqlite3.OperationalError when another process still has the file after ``wait_s``.
        """
        file.parent.mkdir(parents=True, exist_ok=True)
        self._wire = wire
        self._max_bytes = max_bytes
        self._database = sqlite3.connect(
            file, timeout=wait_s, isolation_level=None, check_same_thread=False
        )
        self._database.execute("PRAGMA auto_vacuum=INCREMENTAL")
        # One process at a time: two that drain the same rows would send everything twice.
        self._database.execute("PRAGMA locking_mode=EXCLUSIVE")
        self._database.execute("PRAGMA journal_mode=WAL")
        # In WAL mode only FULL syncs at each commit; NORMAL would lose the last ones.
        self._database.execute("PRAGMA synchronous=FULL")
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS spool ("
            "number INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, value BLOB NOT NULL)"
        )
        # Not in the statement above: spools that were made without it have records to send.
        columns = self._database.execute("SELECT name FROM pragma_table_info('spool')")
        if ("traceparent",) not in columns.fetchall():
            self._database.execute("ALTER TABLE spool ADD COLUMN traceparent TEXT")
        count, size = self._database.execute(
            "SELECT COUNT(*), COALESCE(SUM(LENGTH(value)), 0) FROM spool"
        ).fetchone()
        self.records: int = count
        """Rows waiting."""
        self.bytes: int = size + count * _ROW_BYTES
        """What they take of ``max_bytes``."""

    def check(self, record: events.Struct) -> None:
        """Raises InvalidRecord when the record does not fit its contract."""
        self._wire.encode(record)

    def put(self, entries: Sequence[tuple[Topic, events.Struct, str | None]]) -> list[bool]:
        """Add records, each with its traceparent, all in one fsynced commit. False for each that
        there was no room for.

        Raises sqlite3.Error when the disk refuses.
        """
        taken, rows, size = [], [], 0
        for topic, record, traceparent in entries:
            value = self._wire.encode(record)
            limit = self._max_bytes if topic is topics.FEEDBACK else self._max_bytes * 4 // 5
            fits = self.bytes + size + len(value) + _ROW_BYTES <= limit
            taken.append(fits)
            if fits:
                rows.append((topic.name, value, traceparent))
                size += len(value) + _ROW_BYTES
        if rows:
            with self._transaction():
                self._database.executemany(
                    "INSERT INTO spool (topic, value, traceparent) VALUES (?, ?, ?)", rows
                )
            self.records += len(rows)
            self.bytes += size
        return taken

    def head(self, count: int, max_bytes: int = _BATCH_BYTES) -> list[Row]:
        """The oldest records, in order, one at least. A row that no longer decodes is dropped,
        counted and said."""
        rows: list[Row] = []
        broken: list[int] = []
        size = 0
        cursor = self._database.execute(
            "SELECT number, topic, value, traceparent FROM spool ORDER BY number LIMIT ?", (count,)
        )
        for number, name, value, traceparent in cursor:
            size += len(value)
            if rows and size > max_bytes:
                break
            try:
                topic = topics.by_name(name)
                assert topic.record is not None
                record = self._wire.decode(topic.record, value)
                rows.append(Row(number, topic, record, traceparent))
            except (InvalidRecord, KeyError) as error:
                log.error("spool row dropped number=%d topic=%s error=%s", number, name, error)
                metrics.LOST.labels(name, "undecodable").inc()
                broken.append(number)
        cursor.close()
        if broken:
            self.delete(broken)
        return rows

    def delete(self, numbers: Sequence[int]) -> None:
        """Forget records, once Kafka has them."""
        size = 0
        with self._transaction():
            for number in numbers:
                found = self._database.execute(
                    "DELETE FROM spool WHERE number = ? RETURNING LENGTH(value)", (number,)
                ).fetchone()
                size += found[0] + _ROW_BYTES
        self.records -= len(numbers)
        self.bytes -= size
        if not self.records:
            self._database.execute("PRAGMA incremental_vacuum")

    def close(self) -> None:
        self._database.close()

    def _transaction(self) -> _Transaction:
        return _Transaction(self._database)


class _Transaction:
    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def __enter__(self) -> None:
        self._database.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._database.execute("COMMIT" if error is None else "ROLLBACK")
