"""``python -m tests.engine.victim``: engines that kill themselves at a commit point of a swap.

In: lines ``SETTINGS POINT SWAP`` on standard input, one engine after another, attached to a fake
vLLM. SWAP counts from 1, the one at the start; POINT ``-`` is none, then it runs until SIGTERM.
Out: for each its pid at once, and its exit code when it has ended. They are forked from here, so
what an engine imports is imported once.
"""

from __future__ import annotations

from collections import Counter
import ctypes
import os
import signal
import sys

from services.engine import __main__ as program
from services.engine import hostcopy
import services.engine.engine  # noqa: F401
import services.engine.slot  # noqa: F401
import services.engine.swap  # noqa: F401
import tailrace.log.kafka  # noqa: F401
import tailrace.weights.folder  # noqa: F401
from tests.engine.models import tensors

LIFE_S = 40


def life(settings_file: str, point: str, swap: int) -> int:
    """Run one engine with a step that kills."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    signal.alarm(LIFE_S)
    reached: Counter[str] = Counter()

    def step(now: str) -> None:
        reached[now] += 1
        if now == point and reached[now] == swap:
            os.kill(os.getpid(), signal.SIGKILL)

    return program.main(["--settings", settings_file], step=step)


def main() -> None:
    """One engine for each line."""
    hostcopy.warm(tensors(0))
    for line in sys.stdin:
        settings_file, point, swap = line.split()
        pid = os.fork()
        if not pid:
            os._exit(life(settings_file, point, int(swap)))
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
