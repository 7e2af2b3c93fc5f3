"""Follows the releases of one model: which versions are to be served, and to be trained on.

In: the ``releases`` topic, committed. What a release means for the versions that there are is
:meth:`tailrace.weights.lineage.Lineage.served`. Engines, the trainer, the releases service and
``tailrace models`` read with it.
"""

from __future__ import annotations

import logging

from prometheus_client import Counter

from tailrace import topics
from tailrace.ends import to_ends
from tailrace.errors import InvalidRecord, LogError
from tailrace.events import Release
from tailrace.log.base import Consumer, Log, LogRecord
from tailrace.stream import Decoder
from tailrace.topics import named
from tailrace.wire import Wire

_log = logging.getLogger(__name__)

SKIPPED = Counter(
    "tailrace_weights_releases_skipped", "Releases that could not be read, by reason", ["reason"]
)

_REFUSED = "refused: "


def refused(why: str) -> str:
    """The reason of a release that only says again what is in force, since an order was refused."""
    return f"{_REFUSED}{why}"


def refusal(release: Release) -> str | None:
    """Why the order that a release answers was refused; None: it was obeyed."""
    reason = release.reason or ""
    return reason.removeprefix(_REFUSED) if reason.startswith(_REFUSED) else None


class Releases:
    """The releases of one model so far. For one thread."""

    def __init__(self, log: Log, wire: Wire, *, model: str, prefix: str = "") -> None:
        self.newest: Release | None = None
        """The one in force: what is served."""
        self.followed: Release | None = None
        """The newest of mode ``follow``: what is trained on. A pin says nothing about that."""
        self.answers: dict[int, Release] = {}
        """By the offset on ``control`` of the order that each answers."""
        self._log = log
        self._model = model
        self._topic = named(topics.RELEASES, prefix)
        self._decoder = Decoder(log, wire, prefix=prefix)
        self._consumer: Consumer | None = None

    def poll(self, timeout_s: float = 0.0) -> list[Release]:
        """Take in what is there, or comes within ``timeout_s``; the first time everything, so that
        no older word counts. Raises LogError."""
        found: list[Release] = []
        if self._consumer is None:
            end = self._log.ends(self._topic)[0]
            self._consumer = self._log.consumer(committed_only=True)
            self._consumer.assign({(self._topic, 0): self._log.starts(self._topic)[0]})
            try:
                for records in to_ends(self._consumer, {(self._topic, 0): end}):
                    found += self._take(records)
            except LogError:
                self.close()
                raise
        return found + self._take(self._consumer.poll(0.0 if found else timeout_s))

    def add(self, release: Release) -> None:
        """Take the next one."""
        self.newest = release
        if release.mode != "pin":
            self.followed = release
        if release.command is not None:
            self.answers[release.command.offset] = release
        _log.info("release mode=%s live=%s reason=%s", release.mode, release.live, release.reason)

    def close(self) -> None:
        """Let go of the consumer."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    def _take(self, records: list[LogRecord]) -> list[Release]:
        found = []
        for record in records:
            try:
                release = self._decoder.decode(record)
            except InvalidRecord as error:
                SKIPPED.labels(error.reason).inc()
                _log.warning("skipped topic=%s offset=%d: %s", self._topic, record.offset, error)
                continue
            assert isinstance(release, Release)
            if release.model != self._model:
                continue
            self.add(release)
            found.append(release)
        return found
