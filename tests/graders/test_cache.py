"""Grades on disk: there after a crash, bounded, and nothing but a loss when damaged."""

from __future__ import annotations

from pathlib import Path
import sqlite3
import subprocess
import sys

import pytest

from services.graders.cache import Cache, key_of
from tests.borders.test_imports import ROOT

KILLED = """
import os, signal, sys
from pathlib import Path
from services.graders.cache import Cache, key_of
Cache(Path(sys.argv[1]), 10).put(key_of("a"), 0.5)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_put_is_there_after_a_kill(tmp_path: Path) -> None:
    file = tmp_path / "sub" / "cache.sqlite"
    subprocess.run([sys.executable, "-c", KILLED, str(file)], cwd=ROOT, timeout=30)
    cache = Cache(file, 10)
    assert cache.get(key_of("a")) == 0.5
    assert cache.get(key_of("b")) is None
    cache.close()


def test_a_cache_that_cannot_be_opened_is_not_thrown_away(tmp_path: Path) -> None:
    file = tmp_path / "cache.sqlite"
    file.mkdir()
    with pytest.raises(sqlite3.OperationalError):
        Cache(file, 10)
    assert file.is_dir()


def test_keys_do_not_run_together() -> None:
    assert len({key_of("ab", "c"), key_of("a", "bc"), key_of("abc"), key_of("\udcff")}) == 4


def test_those_not_used_for_longest_go(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache.sqlite", 3)
    for n in range(3):
        cache.put(key_of(str(n)), n)
    assert cache.get(key_of("0")) == 0
    for n in range(3, 6):
        cache.put(key_of(str(n)), n)
        cache.get(key_of("0"))
    cache.close()
    again = Cache(tmp_path / "cache.sqlite", 3)
    known = [n for n in range(6) if again.get(key_of(str(n))) is not None]
    again.close()
    assert 0 in known and 5 in known and len(known) <= 4


def test_a_damaged_file_is_begun_anew(tmp_path: Path) -> None:
    file = tmp_path / "cache.sqlite"
    file.write_bytes(b"no database" * 1000)
    cache = Cache(file, 10)
    cache.put(key_of("a"), 1.0)
    assert cache.get(key_of("a")) == 1.0
    cache.close()
