"""Faust's producer, made strict: what was sent is acknowledged, or the process ends.

Faust 0.15.3 logs a failed send and commits past it, its flush gives up after 0.1 s of silence, and
it is idempotent only in exactly-once mode. Here every message, changelog included, is followed
until the brokers have acknowledged it; :meth:`StrictProducer.flush`, which Faust calls before each
commit, waits for all of them; the first failure ends the process at once. A clean stop would
commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
import logging
import os
from typing import Any, NoReturn

from faust.transport.drivers import aiokafka as driver

from services.rewards.consumer import StrictConsumer

logger = logging.getLogger(__name__)
EXIT_CODE = 70
_FLUSH_S = 120.0


def die(what: str, error: BaseException | None) -> NoReturn:
    """End the process with nothing more committed; the supervisor starts it again."""
    logger.critical("ending what=%s error=%r", what, error, exc_info=error)
    logging.shutdown()
    os._exit(EXIT_CODE)


class StrictProducer(driver.Producer):
    """Idempotent, acks=all, and fatal when a send fails."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._unacknowledged: set[asyncio.Future[Any]] = set()

    def _settings_extra(self) -> Mapping[str, Any]:
        return {"acks": "all", "enable_idempotence": True}

    def send_soon(self, fut: Any) -> None:
        """Queue a message (Faust's tables and topics come through here)."""
        self._unacknowledged.add(fut)
        fut.add_done_callback(self._on_done)
        super().send_soon(fut)

    async def send(self, topic: str, *arguments: Any, **keywords: Any) -> Any:
        """Hand one message to the client."""
        try:
            return await super().send(topic, *arguments, **keywords)
        except Exception as error:
            die(f"send to {topic}", error)

    async def flush(self) -> None:
        """Wait until everything queued before this is acknowledged."""
        self.transport.step("flushing")
        waiting = set(self._unacknowledged)
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=_FLUSH_S)
            if late:
                die(f"flush of {len(late)} messages", None)
        self.transport.step("flushed")

    def _on_done(self, fut: asyncio.Future[Any]) -> None:
        self._unacknowledged.discard(fut)
        if fut.cancelled():
            die("a send was cancelled", None)
        error = fut.exception()
        if error is not None:
            die("a send failed", error)


class StrictTransport(driver.Transport):
    """kafka:// with strict clients. ``step`` is told what is done, see the shell."""

    Producer = StrictProducer
    Consumer = StrictConsumer
    step: Callable[[str], None] = staticmethod(lambda name: None)
