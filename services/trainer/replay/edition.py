"""The versions of a replay, published under a prefix of their own.

They have the numbers, ranges and receipts of the versions that they are made after, the replay's
own weights, Steps and figures, and the first of them as a whole model. Places (partition, offset)
in them are those of the original prefix's trajectories.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import msgspec

from services.trainer.account import Place
from services.trainer.canary import CanaryLine
from services.trainer.ledger import CLOCK_SLACK_MS
from services.trainer.policy import Policy
from services.trainer.settings import Settings
from tailrace import topics
from tailrace.errors import InvalidRecord
from tailrace.events import ModelUpdate, Range, Receipt, Step
from tailrace.log.base import Log
from tailrace.replaying import plan
from tailrace.stream import Decoder, publish_schemas, read_all
from tailrace.topics import named
from tailrace.weights import codec, folder
from tailrace.weights.publisher import Publisher
from tailrace.weights.tensors import Tensors, digest, digest_files
from tailrace.weights.trust import Signer
from tailrace.wire import Wire

Keyed = tuple[str, Receipt]
"""A receipt and its session."""


class Edition:
    """One replay's versions. A context manager; for one thread."""

    def __init__(self, log: Log, wire: Wire, settings: Settings, prefix: str) -> None:
        """``settings``: those of the original; see :func:`vacant`. Raises LogError."""
        partitions = log.partitions(named(topics.TRAJECTORIES, settings.prefix))
        log.create(topics.TOPICS, prefix=prefix, session_partitions=partitions)
        publish_schemas(log, prefix=prefix)
        self._publisher = Publisher(
            log,
            wire,
            model=settings.model,
            prefix=prefix,
            signing_key=settings.signing_key,
            trust=settings.trusted_keys if settings.signing_key else (),
        )
        self._tensors: Tensors = {}

    def begin(
        self, chain: Sequence[ModelUpdate], tensors: Tensors, model_dir: Path, *, now_ms: int
    ) -> ModelUpdate:
        """The last version of a chain, as the first of these."""
        files = folder.read_files(model_dir)
        manifest = _blank(
            chain[-1],
            created_ms=now_ms,
            base_version=None,
            base_digest=None,
            digest=digest(tensors),
            config_digest=digest_files(files),
            ranges=_until(chain),
            first_step=None,
            last_step=None,
        )
        self._tensors = tensors
        stream = codec.encode_keyframe(tensors, files)
        self.head = self._publisher.publish(manifest, stream, [], [])
        return self.head

    def add(
        self,
        original: ModelUpdate,
        steps: Sequence[Step],
        receipts: Sequence[Keyed],
        policy: Policy,
        canary: CanaryLine,
        *,
        now_ms: int,
    ) -> ModelUpdate:
        """The next version, after one of the original's."""
        tensors = policy.published() if steps else self._tensors
        after = digest(tensors) if steps else self.head.digest
        changed = after != self.head.digest
        with policy.merged():
            scored = canary.score(policy) if changed else self.head.canary
        manifest = _blank(
            original,
            created_ms=now_ms,
            base_version=self.head.version,
            base_digest=self.head.digest,
            digest=after,
            config_digest=self.head.config_digest,
            first_step=steps[0].step if steps else None,
            last_step=steps[-1].step if steps else None,
            figures=steps[-1].figures if steps else {},
            canary=scored,
        )
        stream = codec.encode_delta(self._tensors, tensors) if changed else None
        dated = [msgspec.structs.replace(step, event_time_ms=now_ms) for step in steps]
        self.head = self._publisher.publish(manifest, stream, dated, receipts)
        self._tensors = tensors
        return self.head

    @property
    def tensors(self) -> Tensors:
        """The weights of :attr:`head`."""
        return self._tensors

    def close(self) -> None:
        """Let go of the log."""
        self._publisher.close()

    def __enter__(self) -> Edition:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def vacant(log: Log, settings: Settings, prefix: str) -> None:
    """That an edition can be published there. Raises ValueError where the prefix is taken,
    SettingsError for a signing key that is none, LogError."""
    if prefix == settings.prefix:
        raise ValueError(f"prefix {prefix!r} is the original's own")
    if settings.signing_key is not None:
        Signer(settings.signing_key)
    plan.vacant(log, prefix)


def receipts_of(
    log: Log, wire: Wire, settings: Settings, updates: Sequence[ModelUpdate]
) -> dict[int, list[Keyed]]:
    """The trainer's receipts of these versions, as far as they are still there."""
    found: dict[int, list[Keyed]] = {u.version: [] for u in updates}
    if not updates:
        return found
    topic = named(topics.RECEIPTS, settings.prefix)
    decoder = Decoder(log, wire, prefix=settings.prefix)
    since_ms = max(0, min(u.created_ms for u in updates) - CLOCK_SLACK_MS)
    starts = log.offsets_at(topic, since_ms)
    for record in read_all(log, topic, starts=starts, committed_only=True):
        try:
            receipt = decoder.decode(record)
        except InvalidRecord:
            continue
        assert isinstance(receipt, Receipt)
        mine = receipt.stage == "trainer" and receipt.model == settings.model
        if mine and receipt.version in found:
            key = (record.key or b"").decode(errors="replace")
            found[receipt.version].append((key, receipt))
    return found


def reworded(
    receipts: Sequence[Keyed], why: Mapping[str, Collection[Place]], *, now_ms: int
) -> list[Keyed]:
    """The receipts, of which those of some places say ``filtered`` for a reason of the replay."""
    made = []
    for key, receipt in receipts:
        receipt = msgspec.structs.replace(receipt, event_time_ms=now_ms)
        place = (receipt.source.partition, receipt.source.offset)
        for reason, places in why.items():
            if place in places:
                receipt = msgspec.structs.replace(receipt, outcome="filtered", reason=reason)
        made.append((key, receipt))
    return made


def _blank(update: ModelUpdate, **fields: object) -> ModelUpdate:
    """A manifest without what a publisher fills in."""
    made = {"kind": None, "codec": None, "chunks": None, "uri": None, "bytes": None, "sha256": None}
    return msgspec.structs.replace(update, **made, keyframe_version=None, **fields)


def _until(chain: Sequence[ModelUpdate]) -> list[Range]:
    """What the chain decided in all: the first of these versions answers for it."""
    newest: dict[int, Range] = {}
    for update in chain:
        newest |= {r.partition: r for r in update.ranges}
    return [msgspec.structs.replace(newest[p], start=0, expired_to=None) for p in sorted(newest)]
