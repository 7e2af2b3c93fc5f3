"""Grades that were made, on disk: what was said once is said again the same, and costs nothing.

A grade is here before its feedback is sent, so an answer graded again after a crash gives the same
record. SQLite in ``<state_dir>/graders/<name>.sqlite``; it survives the end of the process, however
it ends (after a loss of power the last grades may be missing). For one thread at a time.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
import sqlite3

_EVICT_EVERY = 1000
_log = logging.getLogger(__name__)


def key_of(*parts: str) -> bytes:
    """The key that stands for these parts and no others."""
    whole = hashlib.sha256()
    for part in parts:
        body = part.encode("utf-8", "surrogatepass")
        whole.update(len(body).to_bytes(8, "big") + body)
    return whole.digest()


class Cache:
    """At most about ``rows`` grades; those that were not used for longest go first."""

    def __init__(self, file: Path, rows: int) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._rows = rows
        try:
            self._open(file)
        except sqlite3.OperationalError:
            raise  # a full disk, a lock: the grades are sound
        except sqlite3.DatabaseError as error:
            _log.warning("cache dropped file=%s error=%s", file, error)
            for part in (file, *(file.with_name(file.name + end) for end in ("-wal", "-shm"))):
                part.unlink(missing_ok=True)
            self._open(file)

    def get(self, key: bytes) -> float | None:
        """The grade of a key, if it is known."""
        row = self._database.execute("SELECT grade FROM grades WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        self._clock += 1
        self._database.execute("UPDATE grades SET used = ? WHERE key = ?", (self._clock, key))
        return float(row[0])

    def put(self, key: bytes, grade: float) -> None:
        """Know a grade; on disk when this returns."""
        self._clock += 1
        self._database.execute(
            "INSERT OR REPLACE INTO grades VALUES (?, ?, ?)", (key, grade, self._clock)
        )
        self._puts += 1
        if self._puts % min(_EVICT_EVERY, self._rows) == 0:
            self._evict()

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    def _open(self, file: Path) -> None:
        self._database = sqlite3.connect(
            file, timeout=30, isolation_level=None, check_same_thread=False
        )
        try:
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = NORMAL")
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS grades"
                " (key BLOB PRIMARY KEY, grade REAL NOT NULL, used INTEGER NOT NULL) WITHOUT ROWID"
            )
            self._database.execute("CREATE INDEX IF NOT EXISTS by_use ON grades (used)")
            newest = self._database.execute("SELECT max(used) FROM grades").fetchone()[0]
        except sqlite3.DatabaseError:
            self._database.close()
            raise
        self._clock, self._puts = int(newest or 0), 0

    def _evict(self) -> None:
        self._database.execute(
            "DELETE FROM grades WHERE used <= ("
            "SELECT used FROM grades ORDER BY used DESC LIMIT 1 OFFSET ?)",
            (self._rows,),
        )
