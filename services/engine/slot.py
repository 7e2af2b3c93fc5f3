"""The file through which a whole version gets from the host copy into vLLM's worker.

In: verified tensors. Out: the path of a safetensors file in shared memory, which the worker maps.
It is the size of the model, so it lives for one swap only. Each has a name of its own: a worker
that is late reading one never sees the next one's bytes. One process per ``name`` in a folder.

A worker that can write single weights (:mod:`tailrace.plugins.patches`) leaves an empty file
``*.patchable`` beside a version that it loaded as a whole. Until one of those goes without, what
changed since the version before is laid beside each (``*.patch``).
"""

from __future__ import annotations

from collections.abc import Mapping
import json
import logging
from pathlib import Path
import shutil
from typing import Any

from services.engine.patch import patch
from tailrace.errors import UpdateRefused
from tailrace.weights.tensors import ITEM_BYTES, Tensor

logger = logging.getLogger(__name__)

_NAMES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}
_SPARE_BYTES = 16 * 1024 * 1024


class Slot:
    """At most one version, in the first of ``folders`` that has room for it. ``patches``: with what
    changed beside it, for a worker that asks for that."""

    def __init__(self, folders: list[Path], name: str, *, patches: bool = True) -> None:
        self._folders = folders
        self._name = name
        self._count = 0
        self._patches, self._wanted = patches, False
        self._last: tuple[str, Mapping[str, Tensor]] | None = None
        self._whole: Path | None = None
        """Laid last, without a patch: whoever takes patches leaves a mark beside it."""
        self._left: set[Path] = set()
        """What could not be removed: of a vLLM that another user runs."""
        self.clear()

    def write(self, tensors: Mapping[str, Tensor], digest: str, base: str | None = None) -> Path:
        """Lay down a version. ``base``: the digest of what the worker holds, if that is sure; only
        then it may be told what changed alone.

        Raises OSError when no folder has room, UpdateRefused (``kind``) when a tensor is of a
        dtype that vLLM cannot be given.
        """
        unknown = {tensor.dtype for tensor in tensors.values()} - _NAMES.keys()
        if unknown:
            raise UpdateRefused("kind", f"tensors of {sorted(unknown)}")
        self.clear()
        self._count += 1
        needed_bytes = sum(tensor.bits.nbytes for tensor in tensors.values()) + _SPARE_BYTES
        for folder in self._folders:
            if not folder.is_dir() or shutil.disk_usage(folder).free < needed_bytes:
                logger.warning("no room folder=%s needed_bytes=%d", folder, needed_bytes)
                continue
            path = folder / f"tailrace-{self._name}-{self._count}.safetensors"
            _write(path, tensors, {"digest": digest})
            last, self._last = self._last, (digest, tensors)
            patched = False
            if self._patches and self._wanted and last is not None and last[0] == base:
                marks = {"base": last[0], "digest": digest}
                patched = _write_patch(path, last[1], tensors, marks)
            self._whole = None if patched else path
            return path
        raise OSError(f"no folder of {[str(f) for f in self._folders]} has {needed_bytes} bytes")

    def clear(self) -> None:
        """Remove what an earlier swap, or an earlier process of this name, left. What cannot be
        removed stays; its number is not used again."""
        whole, self._whole = self._whole, None
        if whole is not None:
            self._wanted = whole.with_suffix(".patchable").exists()
        for folder in self._folders:
            for path in folder.glob(f"tailrace-{self._name}-*.*"):
                number = path.stem.removeprefix(f"tailrace-{self._name}-")
                if not number.isdecimal() or path in self._left:  # not decimal: another engine's
                    continue
                try:
                    path.unlink(missing_ok=True)
                except OSError as error:
                    logger.warning("cannot remove a file: %s", error)
                    self._left.add(path)
                    self._count = max(self._count, int(number))


def _write_patch(
    path: Path, old: Mapping[str, Tensor], new: Mapping[str, Tensor], marks: dict[str, str]
) -> bool:
    """Is there one now?"""
    found = patch(old, new)
    if found is None:
        return False
    needed_bytes = sum(tensor.bits.nbytes for tensor in found.values()) + _SPARE_BYTES
    if shutil.disk_usage(path.parent).free < needed_bytes:
        logger.warning("no room for a patch folder=%s bytes=%d", path.parent, needed_bytes)
        return False
    beside = path.with_suffix(".patch")
    try:
        _write(beside, found, marks)
    except OSError as error:  # the whole file is there
        logger.warning("no room for a patch file=%s: %s", beside, error)
        beside.unlink(missing_ok=True)
        return False
    return True


def _write(path: Path, tensors: Mapping[str, Tensor], marks: dict[str, str]) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **marks}}
    end = 0
    # Widest elements first keeps every tensor aligned.
    ordered = sorted(tensors.items(), key=lambda item: (-ITEM_BYTES[item[1].dtype], item[0]))
    for name, tensor in ordered:
        start, end = end, end + tensor.bits.nbytes
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": tensor.shape,
            "data_offsets": (start, end),
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 64)
    path.touch(mode=0o600)
    with open(path, "wb", buffering=0) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, tensor in ordered:
            rest = tensor.bits.data.cast("B")
            while rest:  # a raw write may end early
                rest = rest[file.write(rest) :]
