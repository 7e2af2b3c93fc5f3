"""``python -m services.drift``: watches outputs, feedback and trajectories until told to stop.

Exit codes: 0 after a signal, 1 when the log failed, 2 when a setting is wrong.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

from services.drift.settings import Settings
from tailrace import process
from tailrace.errors import LogError

if TYPE_CHECKING:
    from tailrace.log.base import Log


def main() -> int:
    """Build the parts from the settings and run them; the exit code."""
    settings = process.start("drift", Settings)
    stop = process.stopping()

    from tailrace.log.kafka import KafkaLog

    log = KafkaLog(settings.kafka)
    try:
        _run(settings, log, stop)
    except LogError as error:
        return process.ended("drift", error)
    finally:
        log.close()
    return 0


def _run(settings: Settings, log: Log, stop: threading.Event) -> None:
    from services.drift.bank import Bank
    from services.drift.drift import Drift
    from tailrace.stream import Decoder, Writer, publish_schemas
    from tailrace.wire import Wire

    wire = Wire(settings.registry)
    publish_schemas(log, prefix=settings.prefix)
    producer = log.producer()
    try:
        drift = Drift(
            log,
            Decoder(log, wire, prefix=settings.prefix),
            Writer(producer, wire, prefix=settings.prefix, source="drift"),
            Bank(
                adwin_delta=settings.adwin_delta,
                hddm_confidence=settings.hddm_confidence,
                hddm_lambda=settings.hddm_lambda,
                quiet_values=settings.quiet_values,
            ),
            settings.state_dir / "drift",
            prefix=settings.prefix,
            skew_s=settings.skew_s,
            checkpoint_s=settings.checkpoint_s,
        )
        process.expose(
            settings.metrics_port, lambda: None if drift.caught_up else "reading the log"
        )
        while not stop.is_set():
            drift.step(0.5)
        drift.close()
    finally:
        producer.close()


if __name__ == "__main__":
    sys.exit(main())
