"""``python -m services.dashboard``: serve the page until SIGTERM or SIGINT.

Exit codes: 0 after a signal, 1 when the port is taken, 2 when a setting is wrong.
"""

from __future__ import annotations

import sys
import time

from services.dashboard.settings import Settings
from tailrace import process
from tailrace.errors import SettingsError


def main() -> int:
    """Read the settings, build the parts, serve; the exit code."""
    settings = process.start("dashboard", Settings)
    # uvicorn raises the signal that ended it once more; this handler takes that one.
    process.stopping()

    from services.dashboard import entrance
    from services.dashboard.app import Dashboard
    from services.dashboard.server import Server
    from tailrace.log.kafka import KafkaLog

    try:
        entrance.check(settings)
        log = KafkaLog(settings.kafka)
        dashboard = Dashboard(settings, log, now_ms=lambda: time.time_ns() // 1_000_000)
    except SettingsError as error:
        return process.ended("dashboard", error)
    server = Server(dashboard)
    server.run()
    log.close()
    return 0 if server.started else 1


if __name__ == "__main__":
    sys.exit(main())
