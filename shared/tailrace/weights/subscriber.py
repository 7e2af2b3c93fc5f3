"""The receiver's end: committed manifests in log order, and the verified bytes of an update.

Engines, the public :class:`tailrace.ModelUpdates` and the releases service read with it. It decides
nothing: which version to hold is its caller's, whether an update gave the right weights the
store's.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
import io
import logging
import time

from prometheus_client import Counter

from tailrace import topics
from tailrace.errors import InvalidRecord, LogError, UpdateRefused
from tailrace.events import ModelUpdate
from tailrace.log.base import Consumer, Log
from tailrace.stream import Decoder
from tailrace.topics import named
from tailrace.weights.lineage import Lineage
from tailrace.weights.store import Store
from tailrace.wire import Wire

_log = logging.getLogger(__name__)

MANIFESTS_SKIPPED = Counter(
    "tailrace_weights_manifests_skipped", "Manifests that were not taken, by reason", ["reason"]
)
UPDATES_REFUSED = Counter(
    "tailrace_weights_updates_refused", "Updates that did not verify, by reason", ["reason"]
)

_STALL_S = 60.0
_CHUNKS_A_POLL = 8


class Subscriber:
    """Follows the versions of one model. For one thread."""

    def __init__(self, log: Log, wire: Wire, *, model: str, prefix: str = "") -> None:
        self.lineage = Lineage()
        """Everything that :meth:`poll` has seen."""
        self._log = log
        self._model = model
        self._updates_topic = named(topics.MODEL_UPDATES, prefix)
        self._chunks_topic = named(topics.MODEL_CHUNKS, prefix)
        self._decoder = Decoder(log, wire, prefix=prefix)
        self._manifests: Consumer | None = None
        self._chunks: Consumer | None = None

    def poll(self, timeout_s: float) -> list[ModelUpdate]:
        """New committed manifests in log order; empty after ``timeout_s`` without any.

        Skipped, with a counter: other models', repeated versions, records that cannot be read.
        """
        if self._manifests is None:
            self._manifests = self._log.consumer(committed_only=True)
            start = self._log.starts(self._updates_topic)[0]
            self._manifests.assign({(self._updates_topic, 0): start})
        found = []
        for record in self._manifests.poll(timeout_s):
            if record.key != self._model.encode():
                continue
            where = (record.topic, record.partition, record.offset)
            try:
                update = self._decoder.decode(record)
            except InvalidRecord as error:
                MANIFESTS_SKIPPED.labels(error.reason).inc()
                _log.warning("skipped topic=%s partition=%d offset=%d: %s", *where, error)
                continue
            assert isinstance(update, ModelUpdate)
            if update.model != self._model or not self.lineage.add(update):
                reason = "duplicate" if update.model == self._model else "foreign"
                MANIFESTS_SKIPPED.labels(reason).inc()
                _log.warning("skipped topic=%s partition=%d offset=%d: %s", *where, reason)
                continue
            found.append(update)
        return found

    def catch_up(self) -> list[ModelUpdate]:
        """All manifests up to the topic's present end. Raises LogError when it cannot be
        reached."""
        found = self.poll(0)
        assert self._manifests is not None
        end = self._log.ends(self._updates_topic)[0]
        deadline = time.monotonic() + _STALL_S
        while self._manifests.position(self._updates_topic, 0) < end:
            found += self.poll(0.2)
            if time.monotonic() > deadline:
                raise LogError(f"{self._updates_topic}: offset {end} is not reached")
        return found

    def path(self, have_version: int | None, target: int | None = None) -> list[ModelUpdate]:
        """The cheapest updates from ``have_version`` (None: nothing) to ``target`` (default: the
        newest).

        Of what :meth:`poll` has seen. In it, an update whose digest is its base's needs no bytes
        from a holder of the base: ``store.needs(update)``. Raises UpdateRefused (``gap``) when
        there is no way.
        """
        return self.lineage.path(have_version, target)

    def fetch(self, update: ModelUpdate) -> bytes:
        """The update's stream, as long as its manifest says and with its sha256; empty without
        chunks.

        Raises UpdateRefused: ``truncated`` (chunks are missing or deleted), ``corrupt`` (they are
        others). Raises LogError when the broker stops answering.
        """
        if update.chunks is None:
            if update.uri is not None:
                raise UpdateRefused("uri", f"version {update.version} lies at {update.uri}")
            return b""
        offsets, partition = update.chunks.offsets, update.chunks.partition
        if not offsets or offsets != sorted(set(offsets)) or offsets[0] < 0:
            raise UpdateRefused("corrupt", f"version {update.version}: offsets {offsets[:3]}...")
        low = self._log.starts(self._chunks_topic).get(partition)
        high = self._log.ends(self._chunks_topic).get(partition)
        if low is None or high is None or offsets[0] < low or offsets[-1] >= high:
            have = f"{low}..{high}"
            need = f"{offsets[0]}..{offsets[-1]}"
            raise UpdateRefused("truncated", f"version {update.version}: chunks {need} of {have}")
        stream = self._collect(partition, offsets, update)
        if len(stream) != update.bytes:
            reason = "truncated" if len(stream) < (update.bytes or 0) else "corrupt"
            raise UpdateRefused(
                reason, f"version {update.version}: {len(stream)} of {update.bytes}"
            )
        if sha256(stream).hexdigest() != update.sha256:
            raise UpdateRefused("corrupt", f"version {update.version}: sha256 differs")
        return stream

    def advance(self, store: Store, target: int | None = None) -> list[ModelUpdate]:
        """Bring a store to ``target`` (default: the newest). Returns what was applied, in order.

        Where the short way is refused it is tried again from the last keyframe. The caller
        confirms. Raises UpdateRefused (the store then has the last version that verified) and
        LogError.
        """
        first: list[ModelUpdate] = []
        try:
            first = self.path(store.version, target)
            return self._apply(store, first)
        except UpdateRefused as error:
            UPDATES_REFUSED.labels(error.reason).inc()
            if first == self.path(None, target):
                raise
            _log.warning("refused version=%s: %s; trying the keyframe", store.version, error)
        try:
            return self._apply(store, self.path(None, target))
        except UpdateRefused as error:
            UPDATES_REFUSED.labels(error.reason).inc()
            raise

    def close(self) -> None:
        """Let go of the consumers."""
        for consumer in (self._manifests, self._chunks):
            if consumer is not None:
                consumer.close()
        self._manifests = self._chunks = None

    def _apply(self, store: Store, path: Iterable[ModelUpdate]) -> list[ModelUpdate]:
        applied: list[ModelUpdate] = []
        for update in path:
            store.apply(update, self.fetch(update) if store.needs(update) else None)
            applied.append(update)
        return applied

    def _collect(self, partition: int, offsets: list[int], update: ModelUpdate) -> bytes:
        if self._chunks is None:
            self._chunks = self._log.consumer()
        self._chunks.assign({(self._chunks_topic, partition): offsets[0]})
        wanted = set(offsets)
        stream = io.BytesIO()
        heard = time.monotonic()
        while wanted:
            records = self._chunks.poll(0.5, _CHUNKS_A_POLL)
            for record in records:
                if record.offset not in wanted:
                    continue
                wanted.remove(record.offset)
                if record.key != self._model.encode() or not record.value:
                    where = f"{record.topic}/{record.partition}/{record.offset}"
                    raise UpdateRefused("corrupt", f"version {update.version}: {where} is not its")
                stream.write(record.value)
                if stream.tell() > (update.bytes or 0):
                    raise UpdateRefused("corrupt", f"version {update.version}: too many bytes")
            at = self._chunks.position(self._chunks_topic, partition)
            if wanted and min(wanted) < at:
                raise UpdateRefused("truncated", f"version {update.version}: {min(wanted)} is gone")
            now = time.monotonic()
            heard = now if records else heard
            if now - heard > _STALL_S:
                raise LogError(f"{self._chunks_topic}: nothing at offset {at} for {_STALL_S} s")
        self._chunks.assign({})
        return stream.getvalue()
