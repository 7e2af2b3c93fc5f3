"""The receiver's end: committed manifests in log order, and the verified bytes of an update.

Engines, the trainer's recovery, the public :class:`tailrace.ModelUpdates` and the releases service
read with it. It decides nothing: which version to hold is its caller's, whether an update gave the
right weights the store's.

    poll      manifests that a trusted key signed (where keys are given), into the lineage
    fetch     one update's bytes, from model-chunks or a keyframe's uri, checked
    advance   a store to a version on any branch, by the quickest way that verifies
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import sha256
import logging
from pathlib import Path
import time
from typing import NamedTuple

from prometheus_client import Counter

from tailrace import topics
from tailrace.ends import to_ends
from tailrace.errors import InvalidRecord, UpdateRefused
from tailrace.events import ModelUpdate
from tailrace.log.base import Consumer, Log, LogRecord
from tailrace.stream import Decoder
from tailrace.topics import named
from tailrace.weights import places
from tailrace.weights.chunks import ChunkReader
from tailrace.weights.lineage import MANIFESTS_SKIPPED, Lineage, Way
from tailrace.weights.store import Store
from tailrace.weights.table import CODEC
from tailrace.weights.trust import Trust
from tailrace.wire import Wire

_log = logging.getLogger(__name__)

UPDATES_REFUSED = Counter(
    "tailrace_weights_updates_refused", "Updates that did not verify, by reason", ["reason"]
)

_SAY_S = 5.0


class Progress(NamedTuple):
    """How far the way to a version is."""

    target: int
    bytes: int
    """Fetched so far."""
    of_bytes: int
    """To fetch in all; 0 for a way that needs no download."""


class Subscriber:
    """Follows the versions of one model. For one thread.

    ``trust``: files of public keys; manifests that none of them signed are as if they were not
    there. None given: signatures are not looked at. ``progress`` is called as bytes arrive.
    Raises SettingsError for a key file that is none.
    """

    def __init__(
        self,
        log: Log,
        wire: Wire,
        *,
        model: str,
        prefix: str = "",
        trust: Iterable[Path | str] = (),
        progress: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        self.lineage = Lineage()
        """Everything that :meth:`poll` has taken."""
        self._log = log
        self._model = model
        self._updates_topic = named(topics.MODEL_UPDATES, prefix)
        self._decoder = Decoder(log, wire, prefix=prefix)
        files = tuple(trust)
        self._trust = Trust(files) if files else None
        self._manifests: Consumer | None = None
        self._chunks = ChunkReader(log, named(topics.MODEL_CHUNKS, prefix), key=model.encode())
        self._progress = progress

    def poll(self, timeout_s: float) -> list[ModelUpdate]:
        """New committed manifests in log order; empty after ``timeout_s`` without any.

        Skipped, with a counter: what no trusted key signed, other models', repeated versions, those
        that name other weights than their base has, records that cannot be read.
        """
        if self._manifests is None:
            self._manifests = self._log.consumer(committed_only=True)
            start = self._log.starts(self._updates_topic)[0]
            self._manifests.assign({(self._updates_topic, 0): start})
        return self._heard(self._manifests.poll(timeout_s))

    def _heard(self, records: list[LogRecord]) -> list[ModelUpdate]:
        found = []
        for record in records:
            if record.key != self._model.encode():
                continue
            try:
                found.append(self._take(record))
            except (InvalidRecord, UpdateRefused) as error:
                MANIFESTS_SKIPPED.labels(error.reason).inc()
                where = (record.topic, record.partition, record.offset)
                _log.warning("skipped topic=%s partition=%d offset=%d: %s", *where, error)
        return found

    def catch_up(self) -> list[ModelUpdate]:
        """All manifests up to the topic's present end. Raises LogError when it cannot be
        reached."""
        found = self.poll(0)
        assert self._manifests is not None
        end = self._log.ends(self._updates_topic)[0]
        for records in to_ends(self._manifests, {(self._updates_topic, 0): end}):
            found += self._heard(records)
        return found

    def fetch(
        self, update: ModelUpdate, heard: Callable[[int], None] = lambda count: None
    ) -> bytes:
        """The update's stream, as long as its manifest says and with its sha256; empty without
        chunks. ``heard`` is told how many bytes came.

        Raises UpdateRefused: ``truncated`` (chunks are missing or deleted), ``corrupt`` (they are
        others), ``uri`` (what lies beside the log cannot be read). Raises LogError when the broker
        stops answering.
        """
        size_bytes = update.bytes or 0
        try:
            if update.chunks is not None:
                stream = self._chunks.read(update.chunks, size_bytes, heard)
            elif update.uri is not None:
                stream = places.read(update.uri, size_bytes, heard)
            else:
                return b""
            if len(stream) != size_bytes:
                reason = "truncated" if len(stream) < size_bytes else "corrupt"
                raise UpdateRefused(reason, f"{len(stream)} bytes of {size_bytes}")
            if sha256(stream).hexdigest() != update.sha256:
                raise UpdateRefused("corrupt", "sha256 differs")
        except UpdateRefused as error:
            detail = f"version {update.version}: {error.detail}"
            raise UpdateRefused(error.reason, detail) from None
        return stream

    def advance(self, store: Store, target: int | None = None) -> list[ModelUpdate]:
        """Bring a store to ``target`` (default: the newest), forward, back, or to another branch.
        Returns what was applied, in order.

        The quickest way first; where one of its updates is refused, the next that does without it.
        The caller confirms. Raises UpdateRefused (the store then has the last version that
        verified, and may be brought on when there is another way, or the bytes can be read again)
        and LogError.
        """
        applied: list[ModelUpdate] = []
        refused: dict[tuple[int, bool], UpdateRefused] = {}
        while True:
            try:
                way = self._way(store, target, refused)
            except UpdateRefused as error:
                if error not in refused.values():
                    UPDATES_REFUSED.labels(error.reason).inc()
                raise
            have_bytes = 0
            for update in way.updates if way is not None else ():
                assert way is not None
                reach, fetched = store.reach, update in way.fetched
                try:
                    stream = None
                    if fetched:
                        if update.codec not in (None, CODEC):
                            raise UpdateRefused("codec", f"{update.codec!r:.40}, not {CODEC}")
                        meter = self._meter(way.updates[-1], have_bytes, way.bytes)
                        stream = self.fetch(update, meter)
                        have_bytes += len(stream)
                    store.apply(update, stream)
                    applied.append(update)
                except UpdateRefused as error:
                    UPDATES_REFUSED.labels(error.reason).inc()
                    _log.warning("refused version=%d: %s", update.version, error)
                    if store.reach == reach:  # else it was the journal: the way is another now
                        refused[update.version, fetched] = error
                    break
            else:
                return applied

    def close(self) -> None:
        """Let go of the consumers."""
        if self._manifests is not None:
            self._manifests.close()
            self._manifests = None
        self._chunks.close()

    def _take(self, record: LogRecord) -> ModelUpdate:
        if self._trust is not None:
            self._trust.check(record.value, record.headers)
        update = self._decoder.decode(record)
        assert isinstance(update, ModelUpdate)
        if update.model != self._model:
            raise InvalidRecord("foreign", f"a manifest of {update.model!r:.80}")
        if not self.lineage.add(update):
            raise InvalidRecord("duplicate", f"version {update.version} is there already")
        return update

    def _way(
        self, store: Store, target: int | None, refused: dict[tuple[int, bool], UpdateRefused]
    ) -> Way | None:
        """The quickest way without what was refused and what is deleted; None when there."""
        ways = self.lineage.paths(store.reach, target)
        if not ways:
            return None
        to = ways[0].updates[-1]
        if to.version == store.version and store.reach[0].answers(to.digest, to.config_digest):
            return None
        low = self._chunks.low()
        gone: UpdateRefused | None = None
        for way in ways:
            keys = [(update.version, update in way.fetched) for update in way.updates]
            bad = [refused[key] for key in keys if key in refused]
            lost = [
                u.version
                for u in way.fetched
                if u.chunks and min(u.chunks.offsets, default=low) < low
            ]
            if bad:
                gone = bad[0]
            elif lost:
                gone = gone or UpdateRefused("gap", f"the chunks of version {lost[0]} are deleted")
            else:
                return way
        assert gone is not None
        raise gone

    def _meter(self, target: ModelUpdate, have_bytes: int, of_bytes: int) -> Callable[[int], None]:
        """Counts on from ``have_bytes``; a line in the log every few seconds."""
        said_s = time.monotonic()

        def heard(count: int) -> None:
            nonlocal have_bytes, said_s
            have_bytes += count
            self._progress(Progress(target.version, have_bytes, of_bytes))
            if time.monotonic() > said_s + _SAY_S:
                said_s = time.monotonic()
                _log.info(
                    "fetching version=%d bytes=%d of=%d", target.version, have_bytes, of_bytes
                )

        return heard
