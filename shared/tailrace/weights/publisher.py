"""The trainer's end: a version and the account of what went into it, visible together.

    1  chunks of the stream     on model-chunks, by a plain producer, each acknowledged
    2  one transaction          steps, receipts and the manifest on model-updates;
                                transactional.id <prefix>tailrace.<model>
    3  after a keyframe         chunks that nobody needs any more are deleted

A crash before the end of 2 leaves chunks that no manifest names; they harm nobody and go with 3. A
second publisher of the same model fences the first, whose next call raises Fenced: then the process
must end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
import contextlib
from hashlib import sha256
import logging

import msgspec

from tailrace import topics
from tailrace.errors import Fenced, InvalidRecord, LogError
from tailrace.events import Chunks, ModelUpdate, Receipt, Release, Step
from tailrace.log.base import Log, Position
from tailrace.stream import Decoder, Writer, read_all
from tailrace.topics import MAX_CHUNK_BYTES, named
from tailrace.weights.lineage import Lineage, first_needed_offset
from tailrace.weights.table import CODEC, open_stream
from tailrace.wire import Wire

_log = logging.getLogger(__name__)

_CHUNKS_IN_FLIGHT = 16
_RECORDS_IN_FLIGHT = 10_000
_ACK_TIMEOUT_S = 60.0


class Publisher:
    """Publishes the versions of one model. Making one fences every older publisher of it.

    For one thread; its caller has published the schemas. Raises LogError when the broker does not
    answer.
    """

    def __init__(self, log: Log, wire: Wire, *, model: str, prefix: str = "") -> None:
        self._log = log
        self._model = model
        self._prefix = prefix
        self._decoder = Decoder(log, wire, prefix=prefix)
        self._chunks = log.producer()
        producer = log.producer(transactional_id=f"{prefix}tailrace.{model}")
        self._writer = Writer(producer, wire, prefix=prefix, source="trainer")
        # Fence first, read then: after this no older publisher can add a version to what is read.
        producer.begin()
        producer.abort()
        self._lineage = Lineage()
        for update in self._manifests():
            if update.model == model:
                self._lineage.add(update)

    def head(self) -> ModelUpdate | None:
        """The newest version of the model; None before the first."""
        return self._lineage.head

    def version(self, number: int) -> ModelUpdate | None:
        """One version's manifest, from this model's whole history."""
        return self._lineage.updates.get(number)

    def publish(
        self,
        manifest: ModelUpdate,
        stream: bytes | None,
        steps: Sequence[Step],
        receipts: Sequence[tuple[str, Receipt]],
    ) -> ModelUpdate:
        """Publish one version. Returns its manifest as it lies on the log.

        ``stream`` is what :mod:`tailrace.weights.codec` made; None for a zero-step version.
        ``receipts`` are (session id, receipt). Filled in here: kind, codec, chunks, bytes, sha256,
        keyframe_version.

        Raises ValueError, with nothing written, for a manifest that does not continue the lineage;
        Fenced when a newer publisher took over; LogError when the broker fails. After a LogError
        the version may or may not be there: make a new Publisher and look at its head.
        """
        kind = "delta" if stream is None else open_stream(stream)[0].kind
        self._check(manifest, stream, kind)
        fields: dict[str, object] = {"chunks": None, "bytes": None, "sha256": None, "codec": None}
        fields["kind"] = kind
        if stream is not None:
            fields |= {"codec": CODEC, "bytes": len(stream)}
            fields["sha256"] = sha256(stream).hexdigest()
            fields["chunks"] = self._append_chunks(manifest.version, stream)
        base = self._base(manifest)
        if kind == "keyframe":
            fields["keyframe_version"] = manifest.version
        elif base is not None:
            fields["keyframe_version"] = base.keyframe_version
        update = msgspec.structs.replace(manifest, **fields)
        self._transact(update, steps, receipts)
        self._lineage.add(update)
        _log.info(
            "published version=%d kind=%s bytes=%s steps=%d receipts=%d digest=%s",
            *(update.version, update.kind, update.bytes, len(steps), len(receipts), update.digest),
        )
        if update.kind == "keyframe":
            self._trim()
        return update

    def close(self) -> None:
        """Let go of both producers."""
        self._chunks.close()
        self._writer.producer.close()

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _check(self, manifest: ModelUpdate, stream: bytes | None, kind: str) -> None:
        """The lineage's rules, for the trainer's mistakes not to become everybody's."""
        version, head, base = manifest.version, self._lineage.head, self._base(manifest)
        if manifest.model != self._model or manifest.digest is None:
            raise ValueError(f"version {version}: wrong model {manifest.model!r} or no digest")
        if manifest.kind not in (None, kind):
            raise ValueError(f"version {version}: the stream of a {manifest.kind} is a {kind}")
        if head is not None and version <= head.version:
            raise ValueError(f"version {version} is not after the head, {head.version}")
        if manifest.base_version is None and head is not None:
            raise ValueError(f"version {version} has no base, but {head.version} is there")
        if manifest.base_version is not None:
            if base is None or base.digest != manifest.base_digest:
                raise ValueError(f"version {version}: base {manifest.base_version} is not there")
        if (base is None or base is not head) and kind != "keyframe":
            raise ValueError(f"version {version} begins a branch and must be a keyframe")
        if stream is None and manifest.digest != manifest.base_digest:
            raise ValueError(f"version {version} has no stream, but another digest than its base")
        ends = self._ends(base)
        for r in manifest.ranges:
            where = f"version {version}: partition {r.partition}"
            if r.start != ends.get(r.partition, 0) or r.end < r.start:
                raise ValueError(f"{where} does not go on where its base ended")
            if any(not 0 <= offset < r.end for offset in r.held):
                raise ValueError(f"{where} holds offsets beyond its end")

    def _base(self, manifest: ModelUpdate) -> ModelUpdate | None:
        if manifest.base_version is None:
            return None
        return self._lineage.updates.get(manifest.base_version)

    def _ends(self, base: ModelUpdate | None) -> dict[int, int]:
        """Where each partition goes on: as its base left it, where a manifest does not name it."""
        ends: dict[int, int] = {}
        for update in self._lineage.chain(base.version) if base else ():
            for r in update.ranges:
                ends.setdefault(r.partition, r.end)
        return ends

    def _append_chunks(self, version: int, stream: bytes) -> Chunks:
        topic = named(topics.MODEL_CHUNKS, self._prefix)
        view, key = memoryview(stream), self._model.encode()
        count = -(-len(view) // MAX_CHUNK_BYTES)
        offsets: list[int] = []
        waiting: deque[Future[Position]] = deque()
        try:
            for index in range(count):
                if len(waiting) == _CHUNKS_IN_FLIGHT:
                    offsets.append(waiting.popleft().result(_ACK_TIMEOUT_S).offset)
                value = bytes(view[index * MAX_CHUNK_BYTES : (index + 1) * MAX_CHUNK_BYTES])
                headers = {
                    "tailrace-version": str(version).encode(),
                    "tailrace-chunk": f"{index}/{count}".encode(),
                }
                waiting.append(
                    self._chunks.append(topic, value, key=key, partition=0, headers=headers)
                )
            offsets += [future.result(_ACK_TIMEOUT_S).offset for future in waiting]
        except TimeoutError:
            raise LogError(f"{topic}: a chunk was not acknowledged in {_ACK_TIMEOUT_S} s") from None
        return Chunks(partition=0, offsets=offsets)

    def _transact(
        self, update: ModelUpdate, steps: Sequence[Step], receipts: Sequence[tuple[str, Receipt]]
    ) -> None:
        producer = self._writer.producer
        producer.begin()
        try:
            written: list[Future[Position]] = []
            for step in steps:
                written.append(self._writer.write(topics.STEPS, step))
            for index, (session, receipt) in enumerate(receipts, 1):
                written.append(self._writer.write(topics.RECEIPTS, receipt, key=session))
                if index % _RECORDS_IN_FLIGHT == 0:
                    producer.flush()
            written.append(self._writer.write(topics.MODEL_UPDATES, update))
            producer.flush()
            for future in written:
                future.result(_ACK_TIMEOUT_S)
        except BaseException:
            with contextlib.suppress(LogError):
                producer.abort()
            raise
        producer.commit()

    def _manifests(self) -> list[ModelUpdate]:
        """Every committed manifest of every model, in log order."""
        found = []
        topic = named(topics.MODEL_UPDATES, self._prefix)
        for record in read_all(self._log, topic, committed_only=True):
            try:
                update = self._decoder.decode(record)
            except InvalidRecord as error:
                where = (record.topic, record.partition, record.offset)
                _log.warning("skipped topic=%s partition=%d offset=%d: %s", *where, error)
                continue
            assert isinstance(update, ModelUpdate)
            found.append(update)
        return found

    def _served(self) -> dict[str, set[int]]:
        """Versions that the newest Release of each model names."""
        releases: dict[str, Release] = {}
        for record in read_all(self._log, named(topics.RELEASES, self._prefix)):
            with contextlib.suppress(InvalidRecord):
                release = self._decoder.decode(record)
                assert isinstance(release, Release)
                releases[release.model] = release
        return {
            model: {v for v in (release.live, release.candidate) if v is not None}
            for model, release in releases.items()
        }

    def _trim(self) -> None:
        topic = named(topics.MODEL_CHUNKS, self._prefix)
        try:
            offset = first_needed_offset(self._manifests(), self._served())
            if offset is not None and offset > self._log.starts(topic)[0]:
                self._log.delete_before(topic, {0: offset})
                _log.info("deleted topic=%s partition=0 below_offset=%d", topic, offset)
        except Fenced:
            raise
        except LogError as error:  # the version is out; its old chunks go with the next keyframe
            _log.warning("kept topic=%s partition=0: %s", topic, error)
