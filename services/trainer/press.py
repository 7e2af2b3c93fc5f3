"""Makes versions of what was trained: tensors, ledger and account into one transaction.

Holds the head of the chain that is trained on and its weights as everybody gets them. Numbers go on
after the newest version of the log, whichever branch that is on. Owned by
:mod:`services.trainer.trainer`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import logging
from pathlib import Path

from services.trainer import metrics
from services.trainer.account import Account
from services.trainer.answer import Answer
from services.trainer.canary import CanaryLine
from services.trainer.lora import LoraPolicy
from services.trainer.policy import Policy
from services.trainer.records import manifest_of, receipt_of
from services.trainer.settings import Settings
from tailrace.events import Canary, ModelUpdate, Step
from tailrace.log.base import Log
from tailrace.weights import adapters, codec, folder
from tailrace.weights.publisher import Publisher
from tailrace.weights.tensors import Tensors, digest, digest_files
from tailrace.wire import Wire

_log = logging.getLogger(__name__)


class Press:
    """The versions of one chain. ``head`` and ``base`` are set by :meth:`first` or :meth:`begin`,
    before anything else."""

    head: ModelUpdate
    """The newest version of the chain."""

    def __init__(
        self,
        publisher: Publisher,
        policy: Policy,
        canary: CanaryLine,
        settings: Settings,
        model_dir: Path,
        *,
        wall_ms: Callable[[], int],
        crash: Callable[[str], None],
    ) -> None:
        self._publisher, self._policy, self._canary = publisher, policy, canary
        self._settings = settings
        # Once: the folder may be gone when the next keyframe is due.
        self._files = folder.read_files(model_dir)
        self._wall_ms, self._crash = wall_ms, crash
        self._base: Tensors = {}
        self._under: ModelUpdate | None = None
        """What the adapters of this chain lie on; None: not looked for yet."""

    def begin(self, head: ModelUpdate) -> None:
        """Go on after ``head``, which the policy holds now."""
        self.head, self._base, self._under = head, self._policy.published(), None

    def first(self, account: Account) -> None:
        """Version 0: the model folder, as a keyframe."""
        files, tensors = self._files, self._policy.published()
        manifest = ModelUpdate(
            model=self._settings.model,
            version=0,
            created_ms=self._wall_ms(),
            digest=digest(tensors),
            config_digest=digest_files(files),
            ranges=account.ranges,
            canary=self._scored(),
        )
        stream = codec.encode_keyframe(tensors, files)
        self.head, self._base = self._publisher.publish(manifest, stream, [], []), tensors

    @property
    def next(self) -> int:
        """The number of the next version: those of a branch that was left, and
        of adapters, are not used again."""
        return self._publisher.next_version

    def publish(
        self, account: Account, steps: Sequence[Step], trained: Sequence[Answer], *, keyframe: bool
    ) -> bool:
        """One version of what was trained and decided since the last: it is the head then; a
        ``keyframe`` even where nothing calls for one. Returns whether it has other weights than the
        one before. Raises Fenced, LogError."""
        head = self.head
        tensors = self._policy.published() if steps else self._base
        after = digest(tensors, threads=self._settings.threads) if steps else head.digest
        assert after is not None
        changed = after != head.digest
        stream, config_digest = self._encode(tensors, changed, keyframe)
        manifest = manifest_of(
            head,
            self.next,
            account,
            steps,
            trained,
            digest=after,
            config_digest=config_digest,
            canary=self._scored() if changed else head.canary,
            now_ms=self._wall_ms(),
        )
        receipts = [
            receipt_of(self._settings, d, version=manifest.version, now_ms=manifest.created_ms)
            for d in account.decisions
        ]
        self._crash("encoded")
        self.head = self._publisher.publish(manifest, stream, steps, receipts)
        self._crash("published")
        self._base = tensors
        metrics.VERSION.set(manifest.version)
        metrics.UPDATE_BYTES.observe(len(stream or b""))
        if changed and isinstance(self._policy, LoraPolicy):
            self._publish_adapter(self._policy)
        return changed

    def _publish_adapter(self, policy: LoraPolicy) -> None:
        """What is trained, beside the version just published, for engines that serve its base.

        It decides nothing of the log. After a crash before it there is none of that version; the
        next one has what it had.
        """
        if self._under is None:
            on = digest(policy.base)
            chain = self._publisher.lineage.chain(self.head.version)
            self._under = next((update for update in chain if update.digest == on), None)
        base = self._under
        if base is None:
            _log.warning("no adapter of version=%d: its base is no version", self.head.version)
            return
        adapter = policy.adapter()
        files = {adapters.CONFIG_FILE: adapter.config}
        manifest = ModelUpdate(
            model=self._settings.model,
            version=self.next,
            created_ms=self._wall_ms(),
            kind="adapter",
            base_version=base.version,
            base_digest=base.digest,
            digest=digest(adapter.tensors),
            config_digest=digest_files(files),
            first_step=self.head.first_step,
            last_step=self.head.last_step,
        )
        stream = codec.encode_keyframe(adapter.tensors, files)
        self._publisher.publish(manifest, stream, [], [])

    def _scored(self) -> Canary:
        with self._policy.merged():
            return self._canary.score(self._policy)

    def _encode(
        self, tensors: Tensors, changed: bool, keyframe: bool
    ) -> tuple[bytes | None, str | None]:
        """(stream, config digest) of the next version: none, a delta, or a keyframe when one is
        asked for, or due, or nobody could build the base of a branch any more."""
        head, settings = self.head, self._settings
        newest = self._publisher.head()
        forks = newest is not None and newest.version != head.version
        due = self.next - (head.keyframe_version or 0) >= settings.keyframe_versions and changed
        lost = forks and not self._publisher.retained(head.version)
        if not (keyframe or due or lost):
            threads = settings.threads
            stream = codec.encode_delta(self._base, tensors, threads=threads) if changed else None
            return stream, head.config_digest
        stream = codec.encode_keyframe(tensors, self._files, threads=settings.threads)
        return stream, digest_files(self._files)


def open_publisher(log: Log, wire: Wire, settings: Settings) -> Publisher:
    """The publisher that the settings ask for. Raises SettingsError, LogError."""
    return Publisher(
        log,
        wire,
        model=settings.model,
        prefix=settings.prefix,
        keyframe_store=settings.keyframe_store,
        signing_key=settings.signing_key,
        trust=settings.trusted_keys,
        unsigned_to=settings.unsigned_to,
    )
