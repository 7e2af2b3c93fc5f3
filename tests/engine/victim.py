"""``python -m tests.engine.victim SETTINGS POINT``: the engine, killing itself at a commit point.

Attached to a fake vLLM. ``-`` for no point: then it runs until SIGTERM.
"""

from __future__ import annotations

import os
import signal
import sys

from services.engine import __main__ as program


def main() -> int:
    """Run the engine with a step that kills."""
    settings_file, point = sys.argv[1], sys.argv[2]

    def step(reached: str) -> None:
        if reached == point:
            os.kill(os.getpid(), signal.SIGKILL)

    return program.main(["--settings", settings_file], step=step)


if __name__ == "__main__":
    raise SystemExit(main())
