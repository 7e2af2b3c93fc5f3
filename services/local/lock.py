"""One runner per state directory.

The lock is a flock whose descriptor the guardian holds too: a runner killed with SIGKILL leaves the
directory locked until its last child is gone. Called by :mod:`services.local.runner`.
"""

from __future__ import annotations

from collections.abc import Callable
import fcntl
import os
from pathlib import Path


class AlreadyRunning(RuntimeError):
    """Another runner has this state directory."""


def take(state_dir: Path, ending: Callable[[], None]) -> int:
    """Lock the directory; the descriptor to pass on and, at last, to close.

    While an earlier runner is gone but its children are still ending, ``ending`` is called again
    and again (it waits a moment, and may raise). Raises AlreadyRunning when a runner lives.
    """
    lock = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                owner = os.pread(lock, 32, 0).decode()
            if not owner.isdigit() or Path(f"/proc/{owner}").exists():
                raise AlreadyRunning(f"{state_dir} is in use by another tailrace (pid {owner})")
            ending()
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
    except BaseException:
        os.close(lock)
        raise
    return lock
