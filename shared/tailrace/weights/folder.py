"""A model folder as Hugging Face keeps it: safetensors (one file or sharded), config, tokenizer
files.

Read without torch: the safetensors header is JSON behind a length, the rest is mapped into memory,
so tensors cost nothing until they are touched. A file that is replaced by rename stays valid for
those who mapped it; one that is overwritten in place does not (we never do).
"""

from __future__ import annotations

from collections.abc import Mapping
import json
from math import prod
import mmap
import os
from pathlib import Path
import shutil
import tempfile
from typing import Any

import numpy as np

from tailrace.weights.tensors import ITEM_BYTES, Tensor, Tensors

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}
_NAMES = {ours: theirs for theirs, ours in _DTYPES.items()}
_FILE_SUFFIXES = (".json", ".jinja", ".txt", ".model", ".tiktoken")
_MAX_HEADER_BYTES = 100_000_000
_MAX_FILE_BYTES = 64 * 1024 * 1024


def read(folder: Path | str) -> Tensors:
    """The weights of a model folder, mapped read-only.

    Raises FileNotFoundError without safetensors, ValueError naming the file where one is broken.
    """
    folder = Path(folder)
    index = folder / INDEX_FILE
    if not index.exists():
        return _read_file(folder / WEIGHTS_FILE)
    try:
        weight_map: dict[str, str] = json.loads(index.read_text())["weight_map"]
        shards = sorted(set(weight_map.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index}: no weight_map ({error})") from None
    tensors: Tensors = {}
    for shard in shards:
        if Path(shard).name != shard:
            raise ValueError(f"{index}: shard {shard!r} is outside the folder")
        tensors |= _read_file(folder / shard)
    missing = sorted(weight_map.keys() - tensors.keys())
    if missing:
        raise ValueError(f"{index}: shards lack {missing[0]!r} and {len(missing) - 1} more")
    return {name: tensors[name] for name in weight_map}


def read_files(folder: Path | str) -> dict[str, bytes]:
    """Config and tokenizer files of a model folder, by name: what travels with a keyframe."""
    return {
        path.name: path.read_bytes()
        for path in sorted(Path(folder).iterdir())
        if path.suffix in _FILE_SUFFIXES
        and not path.name.endswith(".index.json")
        and path.is_file()
        and path.stat().st_size <= _MAX_FILE_BYTES
    }


def write(folder: Path | str, tensors: Mapping[str, Tensor], files: Mapping[str, bytes]) -> None:
    """Write a model folder, whole or not at all.

    Written beside, fsynced, then renamed into place. A folder of that name is replaced: a crash
    between its two renames leaves no folder of that name, never a mixture.
    """
    folder = Path(folder)
    for name in files:
        if Path(name).name != name or name == WEIGHTS_FILE:
            raise ValueError(f"{name!r} cannot be a file of a model folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        fresh.chmod(0o755)
        for name, content in files.items():
            with open(fresh / name, "wb") as file:
                file.write(content)
                _sync(file.fileno())
        _write_file(fresh / WEIGHTS_FILE, tensors)
        _sync_folder(fresh)
        if folder.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
            os.rename(folder, old / folder.name)
            os.rename(fresh, folder)
            shutil.rmtree(old)
        else:
            os.rename(fresh, folder)
        _sync_folder(folder.parent)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _read_file(path: Path) -> Tensors:
    with open(path, "rb") as file:
        size_bytes = os.fstat(file.fileno()).st_size
        head = file.read(8)
        header_bytes = int.from_bytes(head, "little")
        if len(head) < 8 or header_bytes > min(_MAX_HEADER_BYTES, size_bytes - 8):
            raise ValueError(f"{path}: no safetensors header")
        try:
            header: dict[str, Any] = json.loads(file.read(header_bytes))
            header.pop("__metadata__", None)
            start = 8 + header_bytes
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            return {name: _tensor(mapped, start, entry) for name, entry in header.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: broken safetensors ({error})") from None


def _tensor(mapped: mmap.mmap, start: int, entry: dict[str, Any]) -> Tensor:
    dtype = _DTYPES[entry["dtype"]]
    shape = tuple(entry["shape"])
    first, last = entry["data_offsets"]
    count = prod(shape)
    if first < 0 or last - first != count * ITEM_BYTES[dtype] or start + last > len(mapped):
        raise ValueError(f"offsets {first}..{last} do not hold {dtype}{list(shape)}")
    data = np.frombuffer(mapped, np.uint8, last - first, start + first)
    if data.ctypes.data % ITEM_BYTES[dtype]:
        data = data.copy()
    return Tensor.of(dtype, shape, data)


def _write_file(path: Path, tensors: Mapping[str, Tensor]) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    # Larger elements first, so that every tensor lies at a multiple of its element's size.
    names = sorted(tensors, key=lambda name: (-ITEM_BYTES[tensors[name].dtype], name))
    end = 0
    for name in names:
        tensor = tensors[name]
        start, end = end, end + tensor.bits.nbytes
        entry = {"dtype": _NAMES[tensor.dtype], "shape": tensor.shape, "data_offsets": (start, end)}
        header[name] = entry
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            file.write(tensors[name].bits.data)
        _sync(file.fileno())


def _sync(descriptor: int) -> None:
    os.fsync(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)
