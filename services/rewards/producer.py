"""Faust's transport, made strict: before each commit the outbox is flushed.

Faust 0.15.3 logs a failed send and commits past it, and its flush gives up after 0.1 s of silence.
Nothing is sent through its producer here, see :mod:`services.rewards.outbox`; what is left of it is
that Faust asks it for a flush before it commits.
"""

from __future__ import annotations

from collections.abc import Callable
import logging
import os
from typing import Any, NoReturn

from faust.transport.drivers import aiokafka as driver

from services.rewards.consumer import StrictConsumer
from services.rewards.outbox import Outbox

logger = logging.getLogger(__name__)
EXIT_CODE = 70


def die(what: str, error: BaseException | None) -> NoReturn:
    """End the process with nothing more committed; the supervisor starts it again."""
    logger.critical("ending what=%s error=%r", what, error, exc_info=error)
    logging.shutdown()
    os._exit(EXIT_CODE)


class StrictProducer(driver.Producer):
    """Sends nothing, and flushes what the outbox has."""

    def send_soon(self, fut: Any) -> None:
        die(f"a send through Faust to {fut.message.channel}", None)

    async def send(self, topic: str, *arguments: Any, **keywords: Any) -> Any:
        die(f"a send through Faust to {topic}", None)

    async def flush(self) -> None:
        """Wait until everything appended before this is acknowledged."""
        self.transport.step("flushing")
        await self.transport.outbox.flush()
        self.transport.step("flushed")


class StrictTransport(driver.Transport):
    """kafka:// with strict clients. ``step`` is told what is done, see the shell."""

    Producer = StrictProducer
    Consumer = StrictConsumer
    step: Callable[[str], None] = staticmethod(lambda name: None)
    outbox: Outbox
