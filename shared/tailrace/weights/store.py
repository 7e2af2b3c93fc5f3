"""The host copy: the weights that a receiver holds, never others than their digest says.

An engine applies an update here, swaps it into its server, then confirms, or rolls back to what it
served. The versions before are reached through the undo journal (:mod:`.journal`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tailrace.errors import UpdateRefused
from tailrace.events import ModelUpdate
from tailrace.weights import codec
from tailrace.weights.journal import Journal, Undo
from tailrace.weights.lineage import State
from tailrace.weights.tensors import Tensor, digest, digest_files

JOURNAL_BYTES = 256 * 1024 * 1024
"""Room for undos where nothing else is said: some 70 updates of 135M weights at lr 2e-5."""


class Held(NamedTuple):
    """One state of the store."""

    tensors: Mapping[str, Tensor]
    version: int | None
    digest: str
    files: Mapping[str, bytes]
    config: str | None
    """Digest of the files; None: none were given, and none are asked for."""
    journal: Journal

    @property
    def state(self) -> State:
        return State(self.digest, self.config)


class Store:
    """The tensors of one version, and of the last confirmed one until :meth:`confirm`.

    ``digest`` is what :func:`tailrace.weights.tensors.digest` says of ``tensors``. ``version`` is
    only a label: how to go on is found by digest. ``files`` are the config and tokenizer files
    beside the weights: what a manifest says of them (``config_digest``) must hold too, and where it
    does not, only a keyframe brings the right ones. None: for who wants the weights alone.
    ``Store.empty()`` holds nothing and takes keyframes only. ``journal_bytes`` bounds the undo
    journal; 0: no way back but a keyframe. For one thread.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        version: int | None,
        digest: str,
        files: Mapping[str, bytes] | None = None,
        *,
        journal_bytes: int = 0,
    ) -> None:
        config = None if files is None else digest_files(files)
        self._now = Held(tensors, version, digest, files or {}, config, Journal(journal_bytes))
        self._confirmed: Held | None = None

    @classmethod
    def empty(cls, *, journal_bytes: int = 0) -> Store:
        """A store for who has no model yet."""
        return cls({}, None, digest({}), journal_bytes=journal_bytes)

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """The weights now. Read-only; shared between versions where they did not change."""
        return self._now.tensors

    @property
    def version(self) -> int | None:
        return self._now.version

    @property
    def digest(self) -> str:
        return self._now.digest

    @property
    def files(self) -> Mapping[str, bytes]:
        """Config and tokenizer files, of the last keyframe or as given."""
        return self._now.files

    @property
    def reach(self) -> tuple[State, ...]:
        """What is here without a download: held, one step back, two..."""
        return (self._now.state, *self._now.journal.states)

    def needs(self, update: ModelUpdate) -> bool:
        """Whether :meth:`apply` needs the update's stream; not where its weights, and its files,
        are in :attr:`reach`."""
        return self._steps(update.digest, update.config_digest) is None

    def apply(self, update: ModelUpdate, stream: bytes | None) -> None:
        """Go to ``update``'s version by its stream, for which the journal leads back to its base
        first; without one by its number alone, or back through the journal.

        ``stream`` may be None (or empty) when :meth:`needs` says no. The tensors that were
        confirmed last stay until :meth:`confirm`. A repeated version is skipped.

        Raises UpdateRefused and leaves the weights as they were: ``base`` or ``gap`` (not made for
        weights in reach), ``digest`` (the result, weights or config files, is not what the manifest
        says), ``kind``, ``truncated``, ``corrupt``; ``undo`` when the journal did not lead to
        weights of the right digest, which is then forgotten.
        """
        steps = self._steps(update.digest, update.config_digest)
        if update.version == self._now.version and steps == 0:
            return
        if not stream:
            if steps is None:
                raise self._missing(update)
            after = self._back(steps)._replace(version=update.version)
        elif update.kind == "keyframe":
            after = self._from_keyframe(update, stream)
        elif update.kind == "delta":
            after = self._from_delta(update, stream)
        else:
            raise UpdateRefused("kind", f"version {update.version} is a {update.kind}")
        if self._confirmed is None:
            self._confirmed = self._now
        self._now = after

    def confirm(self) -> None:
        """What is held now is served: forget what was before, but for the journal."""
        self._confirmed = None

    def rollback(self) -> None:
        """Back to what was confirmed last, as it was; nothing to do when that is held."""
        if self._confirmed is not None:
            self._now, self._confirmed = self._confirmed, None

    def _steps(self, mark: str | None, config: str | None) -> int | None:
        """How many steps back these weights and files are; None: not in reach."""
        found = (n for n, state in enumerate(self.reach) if state.answers(mark, config))
        return next(found, None)

    def _missing(self, update: ModelUpdate) -> UpdateRefused:
        if any(state.digest == update.digest for state in self.reach):
            return UpdateRefused("digest", f"config files of version {update.version}")
        return UpdateRefused("truncated", f"version {update.version} came without its bytes")

    def _from_keyframe(self, update: ModelUpdate, stream: bytes) -> Held:
        tensors, files = codec.decode_keyframe(stream)
        config = digest_files(files)
        if update.config_digest not in (None, config):
            raise UpdateRefused("digest", f"config files of version {update.version}")
        mark = _verified(update, tensors)
        now, journal = self._now, self._now.journal
        if journal.limit_bytes and now.tensors:
            undo = codec.encode_delta(tensors, now.tensors)
            journal = journal.after(Undo(undo, now.digest, now.files, now.config))
        # Equal files are kept once, however many keyframes the journal goes back over.
        kept = now.files if files == now.files else files
        return Held(tensors, update.version, mark, kept, config, journal)

    def _from_delta(self, update: ModelUpdate, stream: bytes) -> Held:
        steps = self._steps(update.base_digest, update.config_digest)
        if steps is None:
            if any(state.digest == update.base_digest for state in self.reach):
                raise UpdateRefused("digest", f"config files of version {update.version}")
            reason = "base" if update.base_version == self._now.version else "gap"
            detail = f"is for {update.base_version}, not {self._now.version}"
            raise UpdateRefused(reason, f"version {update.version} {detail}")
        base = self._back(steps)
        with_undo = base.journal.limit_bytes > 0
        tensors, undo = codec.apply_delta(stream, base.tensors, with_undo=with_undo)
        mark, journal = _verified(update, tensors), base.journal
        if undo is not None:
            journal = journal.after(Undo(undo, base.digest, base.files, base.config))
        return base._replace(tensors=tensors, version=update.version, digest=mark, journal=journal)

    def _back(self, steps: int) -> Held:
        """A state in reach, verified; its version is for the caller to say."""
        now = self._now
        if steps == 0:
            return now
        found = now.journal.undos[steps - 1]
        try:
            tensors = now.journal.undo(now.tensors, steps)
            if digest(tensors) != found.digest:
                raise UpdateRefused("digest", f"not {found.digest:.12}")
        except UpdateRefused as error:
            self._now = now._replace(journal=Journal(now.journal.limit_bytes))
            raise UpdateRefused("undo", f"{steps} back from {now.version}: {error}") from None
        journal = now.journal.before(steps)
        return Held(tensors, None, found.digest, found.files, found.config, journal)


def _verified(update: ModelUpdate, tensors: Mapping[str, Tensor]) -> str:
    """The digest of what an update made. Raises UpdateRefused when it is not the manifest's."""
    mark = digest(tensors)
    if mark != update.digest:
        raise UpdateRefused("digest", f"version {update.version} is {mark[:12]} here")
    return mark
