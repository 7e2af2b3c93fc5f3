"""What an engine says it did: ModelAck records, never a reason to stop.

In: what :mod:`services.engine.engine` decided. Out: records on ``model-acks``. One that the log
does not take is counted and lost; the next ``serving`` says the same.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
import logging
from typing import Any

from prometheus_client import Counter

from tailrace.errors import LogError
from tailrace.events import ModelAck

logger = logging.getLogger(__name__)

LOST = Counter("tailrace_engine_acks_lost", "Acks that the log did not take")


class Acks:
    """Writes the acks of one engine. ``wall_ms`` is the date."""

    def __init__(
        self,
        *,
        engine: str,
        model: str,
        write: Callable[[ModelAck], Future[Any]],
        wall_ms: Callable[[], int],
    ) -> None:
        self._engine, self._model = engine, model
        self._write, self._wall_ms = write, wall_ms

    def send(
        self,
        state: str,
        version: int,
        digest: str | None,
        *,
        reason: str | None = None,
        apply_ms: float | None = None,
        pause_ms: float | None = None,
    ) -> None:
        """Queue one ack. ``pause_ms`` None: no version that was served stood still for it."""
        record = ModelAck(
            engine=self._engine,
            model=self._model,
            version=version,
            event_time_ms=self._wall_ms(),
            state=state,
            reason=reason,
            apply_ms=apply_ms,
            pause_ms=pause_ms,
            digest=digest,
        )
        try:
            self._write(record).add_done_callback(_note_loss)
        except LogError as error:
            LOST.inc()
            logger.warning("ack lost version=%d state=%s: %s", version, state, error)


def _note_loss(written: Future[Any]) -> None:
    error = written.exception()
    if error is not None:
        LOST.inc()
        logger.warning("ack lost: %s", error)
