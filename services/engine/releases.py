"""Which version is to be served: the newest, unless the last Release of this model pins another.

In: the ``releases`` topic. Out: a pinned version or None. Called by :mod:`services.engine.engine`.
"""

from __future__ import annotations

import logging
import time

from prometheus_client import Counter

from tailrace import topics
from tailrace.errors import InvalidRecord, LogError
from tailrace.events import Release
from tailrace.log.base import Consumer, Log, LogRecord
from tailrace.stream import Decoder
from tailrace.topics import named
from tailrace.wire import Wire

logger = logging.getLogger(__name__)

SKIPPED = Counter("tailrace_engine_releases_skipped", "Releases that were not read", ["reason"])

_STALL_S = 30.0


class Releases:
    """Follows the releases of one model. For one thread."""

    def __init__(self, log: Log, wire: Wire, *, model: str, prefix: str = "") -> None:
        self.pinned: int | None = None
        """The version to serve; None: the newest."""
        self._log = log
        self._model = model
        self._topic = named(topics.RELEASES, prefix)
        self._decoder = Decoder(log, wire, prefix=prefix)
        self._consumer: Consumer | None = None

    def poll(self) -> None:
        """Take in what is there; the first time everything, so no older word counts. Raises
        LogError."""
        if self._consumer is None:
            end = self._log.ends(self._topic)[0]
            self._consumer = self._log.consumer()
            self._consumer.assign({(self._topic, 0): self._log.starts(self._topic)[0]})
            deadline = time.monotonic() + _STALL_S
            while self._consumer.position(self._topic, 0) < end:
                self._take(self._consumer.poll(0.2))
                if time.monotonic() > deadline:
                    self.close()
                    raise LogError(f"{self._topic}: offset {end} is not reached")
        self._take(self._consumer.poll(0))

    def _take(self, records: list[LogRecord]) -> None:
        for record in records:
            try:
                release = self._decoder.decode(record)
            except InvalidRecord as error:
                SKIPPED.labels(error.reason).inc()
                logger.warning("skipped topic=%s offset=%d: %s", self._topic, record.offset, error)
                continue
            assert isinstance(release, Release)
            if release.model != self._model:
                continue
            self.pinned = release.live if release.mode == "pin" else None
            logger.info("release mode=%s live=%s", release.mode, release.live)

    def close(self) -> None:
        """Let go of the consumer."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None
