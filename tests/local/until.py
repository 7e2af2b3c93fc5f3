"""Waiting for other processes: a condition, a deadline, what was waited for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
import time
from typing import TypeVar

import psutil

T = TypeVar("T")


def until(condition: Callable[[], T], what: str, timeout_s: float = 20.0) -> T:
    """The first true value of ``condition``. Fails after ``timeout_s``."""
    deadline_s = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline_s, f"not in {timeout_s:.0f} s: {what}"
        time.sleep(0.02)
    return value


def pids(file: Path) -> dict[str, list[int]]:
    """Who said that it lives, by name, in order."""
    found: dict[str, list[int]] = {}
    for line in file.read_text().splitlines() if file.exists() else ():
        name, pid = line.split()
        found.setdefault(name, []).append(int(pid))
    return found


def lives(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
