"""A gateway in a process of its own that kills itself at a numbered point.

``python -m tests.gateway.victim SETTINGS POINT``; point 0 never. Points: 1 feedback is queued,
2 durable, 3 answered, 4 spooled records are on Kafka but not yet deleted.
"""

from __future__ import annotations

import os
from pathlib import Path
import signal
import sys
import time

import uvicorn

from services.gateway.build import build
from services.gateway.settings import Settings
from tailrace import settings


def main() -> None:
    point = int(sys.argv[2])

    def step(number: int) -> None:
        if number == point:
            os.kill(os.getpid(), signal.SIGKILL)

    values = settings.load(Settings, "gateway", {}, Path(sys.argv[1]))
    gateway, fold = build(values, now_ms=lambda: time.time_ns() // 1_000_000, step=step)
    if fold is not None:
        fold.start()
    uvicorn.run(gateway.app(), host=values.host, port=values.port, log_level="warning")
    if fold is not None:
        fold.close()


main()
