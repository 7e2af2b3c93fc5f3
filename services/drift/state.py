"""The checkpoint: detectors and offsets in one file that is either old or new, never half.

``<state_dir>/drift/checkpoint`` has three parts: the SHA-256 of all that follows (64 hex digits), a
line of JSON (:class:`Header`), the pickled bank. A bank is only unpickled when the checksum is
right and River's and Python's versions, the detectors' parameters and this format are those that
wrote it. Otherwise, or when it does not load, the log is read again from its start, and the offsets
of the header say which alarms were sent already.

Writing takes numbered steps, after the alarms were acknowledged (1 and 2, in :mod:`.drift`):
3 written beside the old one and fsynced, 4 renamed over it, 5 the folder fsynced. A crash before 4
leaves the old checkpoint: its alarms are made again, the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import hashlib
import io
import logging
import os
from pathlib import Path
import pickle
import platform
from typing import Any

import msgspec
import river

from services.drift.bank import Bank
from services.drift.merge import Done, Place

FORMAT = 1
_SAFE_MODULES = ("services.drift.bank", "river.drift", "river.stats", "river._river_rust")
_SAFE_CLASSES = (("collections", "deque"),)
_log = logging.getLogger(__name__)


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What a checkpoint says about itself, readable without unpickling."""

    format: int
    river: str
    python: str
    parameters: dict[str, float]
    done: list[tuple[str, int, int, int]]
    """Topic, partition, next offset, time in ms of the record before it."""

    def places(self) -> dict[Place, Done]:
        """How far the detectors had come, by partition."""
        return {(topic, p): Done(offset, time_ms) for topic, p, offset, time_ms in self.done}


class Checkpoint(msgspec.Struct, frozen=True):
    """A checkpoint as it was found: ``bank`` is None where it is not for us."""

    header: Header
    bank: Bank | None


def save(
    folder: Path, bank: Bank, done: Mapping[Place, Done], reached: Callable[[int], None]
) -> None:
    """Write the checkpoint; ``reached`` is told each numbered step that is done. Raises OSError."""
    header = Header(
        format=FORMAT,
        river=river.__version__,
        python=platform.python_version(),
        parameters=bank.parameters,
        done=[(t, p, d.offset, d.time_ms) for (t, p), d in sorted(done.items())],
    )
    body = msgspec.json.encode(header) + b"\n" + pickle.dumps(bank, protocol=5)
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / "checkpoint.new"
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
        file.flush()
        os.fsync(file.fileno())
    reached(3)
    beside.replace(folder / "checkpoint")
    reached(4)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    reached(5)


def load(folder: Path, parameters: Mapping[str, float]) -> Checkpoint | None:
    """The last checkpoint. None when there is none or it is damaged (logged)."""
    file = folder / "checkpoint"
    try:
        mark, _, body = file.read_bytes().partition(b"\n")
    except FileNotFoundError:
        return None
    if hashlib.sha256(body).hexdigest().encode() != mark:
        _log.warning("checkpoint damaged file=%s", file)
        return None
    line, _, pickled = body.partition(b"\n")
    try:
        header = msgspec.json.decode(line, type=Header)
    except msgspec.DecodeError as error:
        _log.warning("checkpoint of another format file=%s error=%s", file, error)
        return None
    ours = (FORMAT, river.__version__, platform.python_version(), dict(parameters))
    theirs = (header.format, header.river, header.python, header.parameters)
    if ours != theirs:
        _log.warning("checkpoint of others file=%s ours=%s theirs=%s", file, ours, theirs)
        return Checkpoint(header, None)
    try:
        bank = _Unpickler(io.BytesIO(pickled)).load()
        if not isinstance(bank, Bank):
            raise pickle.UnpicklingError(f"{type(bank).__name__} where a bank goes")
    except Exception as error:  # a pickle raises whatever its bytes lead it to
        _log.warning("checkpoint unloadable file=%s error=%r", file, error)
        return Checkpoint(header, None)
    return Checkpoint(header, bank)


class _Unpickler(pickle.Unpickler):
    """Knows the classes of a bank and nothing else, so a planted file cannot run code."""

    def find_class(self, module: str, name: str) -> Any:
        inside = any(module == safe or module.startswith(f"{safe}.") for safe in _SAFE_MODULES)
        if not inside and (module, name) not in _SAFE_CLASSES:
            raise pickle.UnpicklingError(f"{module}.{name} is not part of a bank")
        return super().find_class(module, name)
