"""The kernel's view of our processes: who descends from whom, who dies with whom. Linux.

Called by :mod:`services.local.supervisor`, :mod:`services.local.guardian` and
:mod:`services.local.runner`.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time

import psutil

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LIBC = ctypes.CDLL(None, use_errno=True)
MARK = "_TAILRACE_RUN"
"""Environment variable that every process of a run inherits; its value names the run."""


def adopt_orphans() -> None:
    """From now on orphaned descendants of this process become its children, not init's."""
    if _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """The kernel sends this process a signal when the thread that started it ends."""
    if _LIBC.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")


def children(pid: int) -> list[int]:
    """Living direct children, zombies left out."""
    return [child.pid for child in _family(pid, recursive=False)]


def descendants(pid: int) -> list[int]:
    """Living children, their children and so on, zombies left out."""
    return [child.pid for child in _family(pid, recursive=True)]


def _family(pid: int, *, recursive: bool) -> list[psutil.Process]:
    try:
        family = psutil.Process(pid).children(recursive=recursive)
    except psutil.NoSuchProcess:
        return []
    return [member for member in family if _lives(member)]


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def send(pid: int, number: int) -> None:
    """Send a signal; a process that is gone already is fine."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def marked(mark: str) -> list[int]:
    """Every living process whose environment carries this mark, wherever it hangs in the tree."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and _lives(process):
                found.append(process.pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return [pid for pid in found if pid != os.getpid()]


def sweep(mark: str, grace_s: float = 5.0) -> int:
    """End every process that carries the mark: SIGTERM, then SIGKILL. How many there were."""
    first = marked(mark)
    for pid in first:
        send(pid, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while (left := marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.1)
    while left:
        for pid in left:
            send(pid, signal.SIGKILL)
        time.sleep(0.05)
        left = marked(mark)
    return len(first)
