"""``python -m services.rewards``: one worker of the reward processor. Start several to share
partitions."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any

from services.rewards import spec
from services.rewards.settings import Settings
from tailrace import process
from tailrace.errors import LogError, SettingsError


def main(**parts: Any) -> int:
    """Run until told to stop. ``parts``: what tests put into the Shell."""
    settings = process.start("rewards", Settings)
    try:
        reward_spec = spec.load(settings.spec)
    except SettingsError as error:
        return process.ended("rewards", error)
    if settings.log_level.upper() != "DEBUG":
        for chatty in ("faust", "mode", "aiokafka"):
            logging.getLogger(chatty).setLevel(logging.WARNING)

    from services.rewards.app import Shell
    from services.rewards.metrics import Metrics
    from tailrace.log.kafka import KafkaLog

    stop = process.stopping()
    log = KafkaLog(settings.kafka)

    async def run() -> None:
        shell = Shell(settings, reward_spec, log, metrics=Metrics(), **parts)
        process.expose(settings.metrics_port, shell.ready)
        await shell.run(stop)

    try:
        asyncio.run(run())
    except (LogError, SettingsError) as error:
        return process.ended("rewards", error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
