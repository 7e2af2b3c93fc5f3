"""The trainer's end: a version and the account of what went into it, visible together.

    1  its bytes         chunks on model-chunks, each acknowledged; or a whole file in a store
    2  one transaction   steps, receipts and the (signed) manifest on model-updates;
                         transactional.id <prefix>tailrace.<model>
    3  after a keyframe  chunks and stored keyframes that nobody needs any more are deleted

A crash before the end of 2 leaves bytes that no manifest names; they harm nobody. Chunks go with 3,
a stored keyframe too, or at a start, once a version of its number is there. A second publisher of
the same model fences the first, whose next call raises Fenced: then the process must end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future
import contextlib
from hashlib import sha256
import logging
from pathlib import Path

import msgspec

from tailrace import topics
from tailrace.errors import LogError, SettingsError, UpdateRefused
from tailrace.events import ModelUpdate, Receipt, Step
from tailrace.log.base import Log, Position
from tailrace.stream import Decoder, Writer, event_headers
from tailrace.topics import named
from tailrace.weights import chunks
from tailrace.weights.lineage import MANIFESTS_SKIPPED, Lineage, keeps_files
from tailrace.weights.past import Manifests
from tailrace.weights.places import STORE_FAILED, Place
from tailrace.weights.retention import Retention
from tailrace.weights.table import CODEC, open_stream
from tailrace.weights.trust import Signer, Trust
from tailrace.wire import Wire

_log = logging.getLogger(__name__)

_RECORDS_IN_FLIGHT = 10_000
_ACK_TIMEOUT_S = 60.0


class Publisher:
    """Publishes the versions of one model. Making one fences every older publisher of it.

    ``keyframe_store``: the url of any fsspec store; None: keyframes go on the log. ``signing_key``:
    a file; every manifest is signed with it. ``trust``: files of further public keys, for a
    publisher that signs. With a key, only what one of the keys signed counts, and what that
    descends from (:mod:`.history`), so that what a stranger wrote is no base for anything.
    ``unsigned_to``: where nothing is signed yet, the version up to which it is the model's own
    all the same; -1: none of it is.

    For one thread; its caller has published the schemas. Raises SettingsError for a key file or a
    store that is none, for ``trust`` without a ``signing_key``, and where there are versions, none
    is signed by a known key, and ``unsigned_to`` does not say what to make of them; LogError when
    the broker does not answer.
    """

    def __init__(
        self,
        log: Log,
        wire: Wire,
        *,
        model: str,
        prefix: str = "",
        keyframe_store: str | None = None,
        signing_key: Path | None = None,
        trust: Iterable[Path | str] = (),
        unsigned_to: int | None = None,
    ) -> None:
        self._log, self._wire = log, wire
        self._model = model
        self._prefix = prefix
        self._place = Place(keyframe_store, model=model, prefix=prefix) if keyframe_store else None
        self._signer = Signer(signing_key) if signing_key else None
        keys = [*trust, *([signing_key] if signing_key else [])]
        if keys and self._signer is None:
            raise SettingsError(
                "trusted_keys without a signing_key: this trainer would disown what it publishes; "
                "set signing_key to a private key of your own (tailrace keys new FILE) and add its "
                "FILE.pub to trusted_keys, or take trusted_keys out of the trainer's settings"
            )
        decoder = Decoder(log, wire, prefix=prefix)
        trusted = Trust(keys) if keys else None
        self._manifests = Manifests(log, decoder, model=model, prefix=prefix, trust=trusted)
        self._retention = Retention(log, decoder, prefix=prefix, place=self._place)
        self._chunks = log.producer()
        producer = log.producer(transactional_id=f"{prefix}tailrace.{model}")
        self._writer = Writer(producer, wire, prefix=prefix, source="trainer")
        # Fence first, read then: after this no older publisher can add a version to what is read.
        producer.begin()
        producer.abort()
        self._lineage = Lineage()
        self._left: tuple[int, dict[int, int]] = (-1, {})
        """The version that this published last, and where it left each partition: one chain is
        gone on with for long, and is not walked each time."""
        updates, self._free = self._manifests.past(unsigned_to)
        for update in updates:
            try:
                self._lineage.add(update)
            except UpdateRefused as error:
                MANIFESTS_SKIPPED.labels(error.reason).inc()
                _log.warning("skipped version=%d: %s", update.version, error)
        self._retention.sweep(self._lineage)

    @property
    def lineage(self) -> Lineage:
        """This model's whole history."""
        return self._lineage

    def head(self) -> ModelUpdate | None:
        """The newest version of the model, adapters aside; None before the first."""
        return self._lineage.head

    @property
    def next_version(self) -> int:
        """The number of the next version: none is used again, whoever used it when this began."""
        return max(self._lineage.next_version, self._free)

    def version(self, number: int) -> ModelUpdate | None:
        """One version's manifest, from this model's whole history."""
        return self._lineage.updates.get(number)

    def retained(self, version: int) -> bool:
        """Whether a version can still be made of what lies on the log and in the store.

        Where it cannot, or the store does not say, a branch that begins there must begin with a
        keyframe.
        """
        return self._held(version) is True

    def _held(self, version: int) -> bool | None:
        """None where the store does not say."""
        update = self.version(version)
        keyframe = None if update is None else self.version(update.keyframe_version or 0)
        if keyframe is None or keyframe.kind != "keyframe":
            return False
        try:
            return self._retention.holds(keyframe)
        except UpdateRefused as error:
            _log.warning("not known to be there keyframe=%d: %s", keyframe.version, error)
            return None

    def publish(
        self,
        manifest: ModelUpdate,
        stream: bytes | None,
        steps: Sequence[Step],
        receipts: Sequence[tuple[str, Receipt]],
    ) -> ModelUpdate:
        """Publish one version. Returns its manifest as it lies on the log.

        ``stream`` is what :mod:`tailrace.weights.codec` made; None for a zero-step version.
        A keyframe may have its base's digest: who holds the base then only takes the number. An
        adapter (``manifest.kind``) is a keyframe of its own tensors and adapter_config.json, its
        digest theirs, its base what it lies on; it decides nothing of the log, so has no ranges.
        ``receipts`` are (session id, receipt). Filled in here: kind, codec, chunks or uri, bytes,
        sha256, keyframe_version.

        Raises ValueError, with nothing written, for a manifest that does not continue the lineage;
        Fenced when a newer publisher took over; LogError when the broker fails. After a LogError
        the version may or may not be there: make a new Publisher and look at its head.
        """
        kind = "delta" if stream is None else open_stream(stream)[0].kind
        if manifest.kind == "adapter" and kind == "keyframe":
            kind = "adapter"
        self._check(manifest, stream, kind)
        fields: dict[str, object] = {"kind": kind, "codec": None, "bytes": None, "sha256": None}
        fields |= {"chunks": None, "uri": None}
        if stream is not None:
            fields |= {"codec": CODEC, "bytes": len(stream), "sha256": sha256(stream).hexdigest()}
            fields |= self._lay(manifest.version, kind, stream, str(fields["sha256"]))
        base = self._base(manifest)
        if kind == "keyframe":
            fields["keyframe_version"] = manifest.version
        elif base is not None:
            fields["keyframe_version"] = base.keyframe_version
        update = msgspec.structs.replace(manifest, **fields)
        self._transact(update, steps, receipts)
        self._lineage.add(update)
        if update.kind != "adapter":
            left = {r.partition: r.end for r in update.ranges}
            self._left = update.version, {**self._ends(base), **left}
        _log.info(
            "published version=%d kind=%s bytes=%s steps=%d receipts=%d digest=%s",
            *(update.version, update.kind, update.bytes, len(steps), len(receipts), update.digest),
        )
        if update.kind == "keyframe":
            self._retention.trim(self._manifests, self._lineage)
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
        if version < self.next_version and head is not None:
            raise ValueError(f"version {version} is not after the head, {self.next_version - 1}")
        if manifest.base_version is None and head is not None:
            raise ValueError(f"version {version} has no base, but {head.version} is there")
        if manifest.base_version is not None:
            if base is None or base.digest != manifest.base_digest:
                raise ValueError(f"version {version}: base {manifest.base_version} is not there")
            if not keeps_files(msgspec.structs.replace(manifest, kind=kind), base):
                raise ValueError(f"version {version} brings no config files, but names others")
        if kind == "adapter" and manifest.ranges:
            raise ValueError(f"version {version} is an adapter: it has no ranges")
        if base is None and kind != "keyframe":
            raise ValueError(f"version {version} is the first and must be a keyframe")
        if base is not None and base is not head and kind == "delta":
            if self._held(base.version) is False:  # a store that is silent now may have it
                raise ValueError(
                    f"version {version} begins a branch at {base.version}, which nobody can make "
                    "any more: it must be a keyframe"
                )
        if stream is None and manifest.digest != manifest.base_digest:
            raise ValueError(f"version {version} has no stream, but another digest than its base")
        ends = self._ends(base) if manifest.ranges else {}
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
        version, ends = self._left
        if base is not None and base.version == version:
            return ends
        ends = {}
        for update in self._lineage.chain(base.version) if base else ():
            for r in update.ranges:
                ends.setdefault(r.partition, r.end)
        return ends

    def _lay(self, version: int, kind: str, stream: bytes, mark: str) -> dict[str, object]:
        """Put the bytes where readers find them: which field of the manifest says so."""
        if kind == "keyframe" and self._place is not None:
            try:
                return {"uri": self._place.put(version, stream, mark)}
            except Exception as error:  # each store raises its own; the log takes it instead
                STORE_FAILED.labels("write").inc()
                _log.error("keyframe of version=%d goes on the log: %r", version, error)
        topic = named(topics.MODEL_CHUNKS, self._prefix)
        key = self._model.encode()
        return {"chunks": chunks.append(self._chunks, topic, stream, key=key, version=version)}

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
            written.append(self._write(update))
            producer.flush()
            for future in written:
                future.result(_ACK_TIMEOUT_S)
        except BaseException:
            with contextlib.suppress(LogError):
                producer.abort()
            raise
        producer.commit()

    def _write(self, update: ModelUpdate) -> Future[Position]:
        value = self._wire.encode(update)
        headers = event_headers(update, update.model, "trainer")
        if self._signer is not None:
            headers |= self._signer.headers(value)
        topic = named(topics.MODEL_UPDATES, self._prefix)
        return self._writer.producer.append(
            topic, value, key=update.model.encode(), headers=headers
        )
