"""Listens to the other engines of a model on ``model-acks``, for :mod:`services.engine.turns`.

In: the acks of the last ``since_ms``, then each as it comes. Out: told to :class:`Turns` in log
order. Called by :mod:`services.engine.engine`.
"""

from __future__ import annotations

from collections.abc import Callable
import logging

from prometheus_client import Counter

from services.engine.turns import Turns
from tailrace.errors import InvalidRecord
from tailrace.events import ModelAck
from tailrace.log.base import Consumer, Log
from tailrace.stream import Decoder
from tailrace.topics import MODEL_ACKS, named
from tailrace.wire import Wire

logger = logging.getLogger(__name__)

UNREAD = Counter("tailrace_engine_acks_unread", "Acks that were skipped, by reason", ["reason"])


class Peers:
    """The acks of one model. ``wall_ms`` is the date. For one thread."""

    def __init__(
        self,
        log: Log,
        wire: Wire,
        turns: Turns,
        *,
        model: str,
        wall_ms: Callable[[], int],
        since_ms: int = 90_000,
        prefix: str = "",
    ) -> None:
        self._log = log
        self._turns = turns
        self._model = model
        self._wall_ms, self._since_ms = wall_ms, since_ms
        self._topic = named(MODEL_ACKS, prefix)
        self._decoder = Decoder(log, wire, prefix=prefix)
        self._consumer: Consumer | None = None

    def poll(self) -> None:
        """Hear what there is to hear. Raises LogError."""
        if self._consumer is None:
            starts = self._log.offsets_at(self._topic, self._wall_ms() - self._since_ms)
            self._consumer = self._log.consumer()
            self._consumer.assign({(self._topic, p): at for p, at in starts.items()})
        for record in self._consumer.poll(0.0):
            try:
                ack = self._decoder.decode(record)
            except InvalidRecord as error:
                UNREAD.labels(error.reason).inc()
                where = (record.topic, record.partition, record.offset)
                logger.warning("skipped topic=%s partition=%d offset=%d: %s", *where, error)
                continue
            assert isinstance(ack, ModelAck)
            if ack.model == self._model:
                self._turns.hear(ack, record.time_ms)
