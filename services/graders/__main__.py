"""``python -m services.graders``: grades answers until told to stop.

Exit codes: 0 after a signal, 1 when the log failed, 2 when the settings or the spec are wrong.
"""

from __future__ import annotations

from collections.abc import Callable
import logging
import sys

from services.graders import spec
from services.graders.settings import Settings
from tailrace import process
from tailrace.errors import LogError, SettingsError


def main(reached: Callable[[int], None] = lambda step: None) -> int:
    """Build the parts from the settings and run them; the exit code."""
    settings = process.start("graders", Settings)
    stop = process.stopping()

    from services.graders.app import Graders
    from tailrace.log.kafka import KafkaLog
    from tailrace.stream import publish_schemas

    try:
        if settings.spec is None:
            raise SettingsError("graders.spec: name the file that says which graders there are")
        log = KafkaLog(settings.kafka)
        graders = Graders(settings, spec.load(settings.spec, settings.keys), log, reached=reached)
    except SettingsError as error:
        return process.ended("graders", error)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for every request
    process.expose(settings.metrics_port, graders.ready)
    try:
        publish_schemas(log, prefix=settings.prefix)
        graders.run(stop)
    except LogError as error:
        return process.ended("graders", error)
    finally:
        log.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
