"""``python -m services.drift``: watches outputs, feedback and trajectories until told to stop."""

from __future__ import annotations

from services.drift.settings import Settings
from tailrace import process


def main() -> None:
    """Build the parts from the settings and run them."""
    settings = process.start("drift", Settings)
    stop = process.stopping()

    from services.drift.bank import Bank
    from services.drift.drift import Drift
    from tailrace.log.kafka import KafkaLog
    from tailrace.stream import Decoder, Writer, publish_schemas
    from tailrace.wire import Wire

    log = KafkaLog(settings.kafka)
    wire = Wire(settings.registry)
    publish_schemas(log, prefix=settings.prefix)
    producer = log.producer()
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
    process.expose(settings.metrics_port, lambda: None if drift.caught_up else "reading the log")
    try:
        while not stop.is_set():
            drift.step(0.5)
        drift.close()
    finally:
        producer.close()
        log.close()


if __name__ == "__main__":
    main()
