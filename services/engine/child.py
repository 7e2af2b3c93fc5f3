"""Starts a command that dies with this process's parent, on some cores:
``python child.py PARENT_PID CORES COMMAND...``, CORES as ``0,2`` or empty for all.

The kernel's parent-death signal is set here, before the command replaces this program, rather than
between fork and exec of a process with threads. Run by :mod:`services.engine.vllm` only, as a file.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Tie this process to its parent and become the command."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    cores = {int(core) for core in arguments[1].split(",") if core}
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    if os.getppid() != int(arguments[0]):  # the parent died before the kernel was told
        raise SystemExit(1)
    os.execvp(arguments[2], arguments[2:])


if __name__ == "__main__":
    main(sys.argv[1:])
