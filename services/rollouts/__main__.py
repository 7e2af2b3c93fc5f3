"""``python -m services.rollouts``: samples groups until told to stop.

Exit codes: 0 after a signal, 1 when the log failed, 2 when the settings or a benchmark are wrong.
"""

from __future__ import annotations

from collections.abc import Callable
import logging
import sys

from services.rollouts.settings import Settings
from tailrace import process
from tailrace.errors import LogError, SettingsError


def main(reached: Callable[[int], None] = lambda step: None) -> int:
    """Build the parts from the settings and run them; the exit code."""
    settings = process.start("rollouts", Settings)
    stop = process.stopping()

    from services.rollouts.rollouts import Rollouts
    from tailrace.log.kafka import KafkaLog
    from tailrace.stream import Writer, publish_schemas
    from tailrace.tasks import benchmark
    from tailrace.wire import Wire

    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for every request
    log = producer = None
    try:
        settings.check()
        benchmarks = benchmark.load_all(settings.tasks)
        log = KafkaLog(settings.kafka)
        producer = log.producer()
        writer = Writer(
            producer, Wire(settings.registry), prefix=settings.prefix, source="rollouts"
        )
        rollouts = Rollouts(settings, benchmarks, writer, reached=reached)
        process.expose(settings.metrics_port, rollouts.ready)
        publish_schemas(log, prefix=settings.prefix)
        rollouts.run(stop)
    except (LogError, SettingsError) as error:
        return process.ended("rollouts", error)
    finally:
        if producer is not None:
            producer.close()
        if log is not None:
            log.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
