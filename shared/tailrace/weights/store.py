"""The host copy: the weights that a receiver holds, never others than their digest says.

An engine applies an update here, swaps it into its server, then confirms, or rolls back to what it
served.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tailrace.errors import UpdateRefused
from tailrace.events import ModelUpdate
from tailrace.weights import codec
from tailrace.weights.tensors import Tensor, digest, digest_files


class Held(NamedTuple):
    """One state of the store."""

    tensors: Mapping[str, Tensor]
    version: int | None
    digest: str
    files: Mapping[str, bytes]


class Store:
    """The tensors of one version, and of the last confirmed one until :meth:`confirm`.

    ``digest`` is what :func:`tailrace.weights.tensors.digest` says of ``tensors``.
    ``Store.empty()`` holds nothing and takes keyframes only. For one thread.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        version: int | None,
        digest: str,
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        self._now = Held(tensors, version, digest, files or {})
        self._confirmed: Held | None = None

    @classmethod
    def empty(cls) -> Store:
        """A store for who has no model yet."""
        return cls({}, None, digest({}))

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

    def needs(self, update: ModelUpdate) -> bool:
        """Whether :meth:`apply` needs the update's stream; not where only the version's number
        changes."""
        return update.digest != self._now.digest

    def apply(self, update: ModelUpdate, stream: bytes | None) -> None:
        """Go to ``update``'s version. ``stream`` may be None (or empty) when :meth:`needs` says no.

        The previous tensors stay until :meth:`confirm`. A repeated version is skipped.

        Raises UpdateRefused and leaves the store as it was: ``base`` or ``gap`` (not made for these
        weights), ``digest`` (the result is not what the manifest says), ``truncated``, ``corrupt``.
        """
        if update.version == self._now.version and not self.needs(update):
            return
        if not stream:
            if self.needs(update):
                raise UpdateRefused("truncated", f"version {update.version} came without its bytes")
            after = self._now._replace(version=update.version)
        elif update.kind == "keyframe":
            tensors, files = codec.decode_keyframe(stream)
            if update.config_digest not in (None, digest_files(files)):
                raise UpdateRefused("digest", f"config files of version {update.version}")
            after = Held(tensors, update.version, digest(tensors), files)
        elif update.kind == "delta":
            self._check_base(update)
            tensors = codec.apply_delta(stream, self._now.tensors).tensors
            after = Held(tensors, update.version, digest(tensors), self._now.files)
        else:
            raise UpdateRefused("kind", f"version {update.version} is a {update.kind}")
        if after.digest != update.digest:
            raise UpdateRefused("digest", f"version {update.version} is {after.digest[:12]} here")
        if self._confirmed is None:
            self._confirmed = self._now
        self._now = after

    def confirm(self) -> None:
        """What is held now is served: forget what was before."""
        self._confirmed = None

    def rollback(self) -> None:
        """Back to what was confirmed last; nothing to do when that is held."""
        if self._confirmed is not None:
            self._now, self._confirmed = self._confirmed, None

    def _check_base(self, update: ModelUpdate) -> None:
        if update.base_digest == self._now.digest:
            return
        reason = "base" if update.base_version == self._now.version else "gap"
        raise UpdateRefused(
            reason,
            f"version {update.version} is for {update.base_version}, not {self._now.version}",
        )
