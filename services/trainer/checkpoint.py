"""Checkpoints: everything a restart needs to go on bit for bit, in one atomic directory.

    <own_dir>/v00000042-<digest>/state.safetensors   float32 masters and both moments
                                 meta.json           the rest, and the sha256 of state.safetensors
                                 seal                sha256 of meta.json

Written at a version boundary, after that version's transaction committed, by a thread that reads
the arrays where they are while training goes on (:mod:`.snapshot`). A directory is only used when
its seal fits and its version and digest are in the log; what a crash left half-written has another
name and is swept at the next start. Arrays are whole tensors under their names, so any number of
processes can go on from one, however many wrote it.

Training never depends on a checkpoint: what cannot be written or read is said, counted by reason
(``full`` ``disk`` ``missing`` ``seal`` ``state`` ``format``) and gone on without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
import errno
from hashlib import sha256
import logging
import os
from pathlib import Path
import shutil
from typing import Any

import msgspec
from safetensors import SafetensorError
from safetensors.torch import load_file
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from services.trainer import metrics
from services.trainer.known import Memory
from services.trainer.snapshot import Snapshot
from tailrace.errors import SettingsError

_log = logging.getLogger(__name__)
_STATE, _META, _SEAL = "state.safetensors", "meta.json", "seal"
_PARTIAL = ".partial-"
_LABEL = len("v00000000")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
Crash = Callable[[str], None]


class Meta(msgspec.Struct, kw_only=True):
    """A checkpoint without its arrays."""

    version: int
    digest: str
    """Of the published weights at ``version``."""
    step: int
    """The last step taken."""
    updates: int
    """Updates that the optimizer's moments have seen."""
    baselines: dict[str, Any] = {}
    """The state of :class:`services.trainer.baselines.Baselines`."""
    memory: Memory
    """Decided ids of the horizon. Ranges and held records are the version's own, in its
    manifest."""
    state_sha256: str = ""


class Broken(ValueError):
    """``reason``: which part of a checkpoint is not what was written: ``seal``, ``state``."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason} differs")
        self.reason = reason


class Checkpoints:
    """The checkpoints of one trainer. For one thread, plus the writer it owns.

    Raises SettingsError for a folder that cannot be made, unless it is for want of space.
    """

    def __init__(self, folder: Path, *, kept: int, crash: Crash = lambda point: None) -> None:
        self._folder = folder
        self._kept = kept
        self._crash = crash
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self._snapshot: Snapshot | None = None
        self.version = 0
        """Of the newest one written or being written; what fails counts no longer."""
        self._known: set[str] = set()
        """Names that the log knows, of this chain."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if (reason := _reason(error)) != "full":
                raise SettingsError(f"state_dir: no checkpoints in {folder}: {error}") from error
            metrics.CHECKPOINT_FAILURES.labels(reason).inc()
            _log.error("no room for checkpoints folder=%s: %s", folder, error)
        # Whichever optimizer it is that is about to move what is being written.
        self._hook = register_optimizer_step_pre_hook(lambda *_: self._freeze())

    def sweep(self) -> None:
        """Remove what was broken off. Not before a trainer that writes there has been fenced."""
        for partial in self._folder.glob(f"{_PARTIAL}*"):
            # A trainer that has not yet heard that it was fenced may be writing there still.
            shutil.rmtree(partial, ignore_errors=True)

    def busy(self) -> bool:
        """Whether the one before is still being written, so that none can begin; that is counted.

        To be asked before a state is gathered, which may take as long as a step.
        """
        busy = self._writing is not None and not self._writing.done()
        if busy:
            metrics.CHECKPOINTS.labels("busy").inc()
        return busy

    def write(self, meta: Meta, state: dict[str, torch.Tensor]) -> None:
        """Begin a checkpoint, unless the one before is still being written.

        From then on optimizers may change ``state``, and nobody else before :meth:`wait`. What
        cannot be written, here or by the thread, is counted, said and swept, and ``version`` is
        what it was.
        """
        if self.busy():
            return
        self.wait()
        with metrics.CHECKPOINT_S.time():
            self._begin(meta, Snapshot(state))

    def _begin(self, meta: Meta, snapshot: Snapshot) -> None:
        name = _name(meta.version, meta.digest)
        partial = self._folder / f"{_PARTIAL}{name}"
        try:
            partial.mkdir(parents=True, exist_ok=True)
            _has_room(partial, snapshot.total_bytes)
        except OSError as error:
            _failed(partial, meta, error)
            return
        # Ids come with the next record, and the thread has to say the sha256.
        frozen = msgspec.structs.replace(meta, memory=meta.memory.copy())
        self._crash("checkpoint_begun")
        before, self.version, self._snapshot = self.version, meta.version, snapshot
        self._writing = self._writer.submit(self._finish, partial, name, frozen, snapshot, before)
        metrics.CHECKPOINTS.labels("begun").inc()

    def _freeze(self) -> None:
        """What is being written is about to change."""
        snapshot, self._snapshot = self._snapshot, None
        if snapshot is not None:
            with metrics.CHECKPOINT_S.time():
                copied = snapshot.freeze()
            _log.info("checkpoint version=%d copied_bytes=%d", self.version, copied)

    def wait(self) -> None:
        """Until nothing is being written. Raises what ended the write, if no disk did."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def newest(
        self, chain: Iterable[tuple[int, str]]
    ) -> tuple[Meta, dict[str, torch.Tensor]] | None:
        """The newest whole checkpoint of these (version, digest), which are what the log knows."""
        wanted = set(chain)
        self._known = {_name(version, digest) for version, digest in wanted}
        for path in sorted(self._folder.glob("v*"), reverse=True):
            try:
                text = (path / _META).read_bytes()
                if sha256(text).hexdigest() != (path / _SEAL).read_text():
                    raise Broken("seal")
                meta = msgspec.json.decode(text, type=Meta)
                if (meta.version, meta.digest) not in wanted:
                    _log.info("checkpoint passed over version=%d: not of this chain", meta.version)
                    continue
                if _file_sha256(path / _STATE) != meta.state_sha256:
                    raise Broken("state")
                return meta, load_file(path / _STATE)
            except (OSError, SafetensorError, ValueError) as error:
                reason = _reason(error)
                metrics.CHECKPOINT_FAILURES.labels(reason).inc()
                _log.error("checkpoint broken path=%s reason=%s: %s", path.name, reason, error)
        return None

    def close(self) -> None:
        """Wait for the writer and end it. Raises what ended the last write, if no disk did."""
        self._hook.remove()
        try:
            self.wait()
        finally:
            self._writer.shutdown()

    def _finish(
        self, partial: Path, name: str, meta: Meta, snapshot: Snapshot, before: int
    ) -> None:
        try:
            meta.state_sha256 = snapshot.write(partial / _STATE)
            self._seal(partial, name, meta)
        except OSError as error:
            _failed(partial, meta, error)
            self.version = before

    def _seal(self, partial: Path, name: str, meta: Meta) -> None:
        text = msgspec.json.encode(meta)
        (partial / _META).write_bytes(text)
        (partial / _SEAL).write_text(sha256(text).hexdigest())
        for path in (partial / _STATE, partial / _META, partial / _SEAL, partial):
            _sync(path)
        self._crash("checkpoint_written")
        final = self._folder / name
        if final.exists():
            shutil.rmtree(final)
        os.rename(partial, final)
        _sync(self._folder)
        self._crash("checkpoint_visible")
        self._known.add(name)
        self._prune(name)
        _log.info("checkpoint version=%d step=%d path=%s", meta.version, meta.step, name)

    def _prune(self, newest: str) -> None:
        """Keep so many up to this one; what the log does not know goes first.

        Later versions are another log's, or a branch that was left: this chain will pass them.
        """
        older = [p for p in self._folder.glob("v*") if p.name[:_LABEL] <= newest[:_LABEL]]
        older = [p for p in older if p.name != newest]
        older.sort(key=lambda path: (path.name in self._known, path.name))
        for path in older[: max(0, len(older) + 1 - self._kept)]:
            shutil.rmtree(path, ignore_errors=True)


def _name(version: int, digest: str) -> str:
    return f"v{version:08d}-{digest[:16]}"


def _failed(partial: Path, meta: Meta, error: Exception) -> None:
    reason = _reason(error)
    metrics.CHECKPOINTS.labels("failed").inc()
    metrics.CHECKPOINT_FAILURES.labels(reason).inc()
    _log.error("checkpoint failed version=%d reason=%s: %s", meta.version, reason, error)
    shutil.rmtree(partial, ignore_errors=True)


def _has_room(folder: Path, needed_bytes: int) -> None:
    """Raises OSError where it has not: to find out by filling the disk would stop others too, and
    cost the trainer a write of its whole state with every version."""
    if (free_bytes := shutil.disk_usage(folder).free) < needed_bytes:
        why = f"{needed_bytes} bytes are needed, {free_bytes} are free"
        raise OSError(errno.ENOSPC, why, str(folder))


def _reason(error: Exception) -> str:
    """In one word, for the counter."""
    if isinstance(error, Broken):
        return error.reason
    number = error.errno if isinstance(error, OSError) else None
    if number in _FULL:
        return "full"
    if number in (errno.ENOENT, errno.ENOTDIR):
        return "missing"
    return "disk" if isinstance(error, OSError) else "format"


def _file_sha256(path: Path) -> str:
    whole = sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            whole.update(block)
    return whole.hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
