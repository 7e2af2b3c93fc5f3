"""``python -m services.releases``: answers what people order about the versions of one model.

Exit codes: 0 after a signal, 1 when the log failed, 2 when a setting is wrong, 3 when another one
took over.
"""

from __future__ import annotations

from collections.abc import Callable
import sys
import time

from services.releases.settings import Settings
from tailrace import process
from tailrace.errors import LogError, SettingsError


def main(argv: list[str] | None = None, crash: Callable[[str], None] = lambda point: None) -> int:
    """Run until SIGTERM. ``crash`` is told every commit point; kill tests end the process there."""
    settings = process.start("releases", Settings, argv)
    stop = process.stopping()
    state = {"why": "reading the log"}
    process.expose(settings.metrics_port, lambda: state["why"] or None)

    from services.releases.desk import Desk
    from tailrace.log.kafka import KafkaLog
    from tailrace.wire import Wire

    log = KafkaLog(settings.kafka)
    try:
        desk = Desk(
            log,
            Wire(settings.registry),
            model=settings.model,
            prefix=settings.prefix,
            trust=settings.trusted_keys,
            wall_ms=lambda: time.time_ns() // 1_000_000,
            crash=crash,
        )
        state["why"] = ""
        try:
            while not stop.is_set():
                desk.turn()
        finally:
            desk.close()
    except (SettingsError, LogError) as error:
        return process.ended("releases", error)
    finally:
        log.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
