"""What a model's weights are here: named tensors of bits, and the digest that says which ones.

bfloat16 has no numpy type, and an update must be exact on every bit pattern (NaN payloads, -0.0),
so a tensor is its *bits*: flat unsigned integers, little-endian. Everyone who compares two models
compares :func:`digest`. Arrays that came from here are read-only: versions share the tensors that
did not change.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from hashlib import sha256
import json
from math import prod
from typing import Any, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

Bits: TypeAlias = npt.NDArray[Any]
"""Flat, contiguous, little-endian: uint16 (bfloat16, float16), uint32 (float32), else uint8."""

ITEM_BYTES = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint64": 8,
    "uint32": 4,
    "uint16": 2,
    "uint8": 1,
    "bool": 1,
}
"""Every dtype that a tensor may have, by torch's name, and the bytes of one element."""

_NOT_NUMPY = ("bfloat16", "float8_e4m3fn", "float8_e5m2")


def bits_dtype(dtype: str) -> np.dtype[Any]:
    """The integer type of ``bits`` for a dtype. Raises ValueError for an unknown dtype."""
    if dtype in ("bfloat16", "float16"):
        return np.dtype("<u2")
    if dtype == "float32":
        return np.dtype("<u4")
    if dtype in ITEM_BYTES:
        return np.dtype("u1")
    raise ValueError(f"unknown dtype {dtype!r}")


class Tensor(msgspec.Struct, frozen=True, eq=False, dict=True):
    """One tensor's bits. Build it with :meth:`of` where the bits come from outside."""

    dtype: str
    """torch's name: ``bfloat16``, ``float32``, ..."""
    shape: tuple[int, ...]
    bits: Bits

    @classmethod
    def of(cls, dtype: str, shape: tuple[int, ...], bits: Bits) -> Tensor:
        """A tensor of any contiguous array with the right number of bytes; no copy.

        Raises ValueError when the dtype is unknown or the bytes do not fit the shape.
        """
        expected_bytes = prod(shape) * ITEM_BYTES.get(dtype, 0)
        kind = bits_dtype(dtype)
        if bits.nbytes != expected_bytes:
            raise ValueError(f"{dtype}{list(shape)} is {expected_bytes} bytes, not {bits.nbytes}")
        flat = np.ascontiguousarray(bits).reshape(-1).view(kind)
        flat.flags.writeable = False
        return cls(dtype, tuple(shape), flat)

    @property
    def sha256(self) -> str:
        """SHA-256 of the little-endian bytes, in hex. Computed once, since versions share the
        tensors that did not change."""
        # Not functools.cached_property, which computes one at a time for all instances.
        known: str | None = self.__dict__.get("sha256")
        if known is None:
            known = self.__dict__["sha256"] = sha256(self.bits.data).hexdigest()
        return known

    def numpy(self) -> npt.NDArray[Any]:
        """A read-only view in its shape, without a copy.

        Types that numpy does not know are given as their bits: bfloat16 as uint16, float8 as uint8.
        """
        kind = self.bits.dtype if self.dtype in _NOT_NUMPY else np.dtype(self.dtype)
        return self.bits.view(kind).reshape(self.shape)

    def float32(self) -> npt.NDArray[np.float32]:
        """A float32 copy in its shape, exact for 16-bit floats. Raises ValueError for float8."""
        if self.dtype == "bfloat16":
            wide = self.bits.astype("<u4")
            wide <<= np.uint32(16)
            return wide.view(np.float32).reshape(self.shape)
        if self.dtype in _NOT_NUMPY:
            raise ValueError(f"no float32 view of {self.dtype}")
        return self.numpy().astype(np.float32)


Tensors: TypeAlias = dict[str, Tensor]
"""A model, by Hugging Face names. What a checkpoint ties is stored once and stays so."""


def digest(tensors: Mapping[str, Tensor], *, threads: int = 1) -> str:
    """Which weights these are: hex SHA-256, the same for the same names, dtypes, shapes and bits.

    The hashed text has one line per tensor, in the order of the names' UTF-8 bytes: the JSON array
    ``["name","dtype",[shape],"sha256"]`` without spaces, ASCII with ``\\u`` escapes, then a
    newline; the inner ``sha256`` is that of the tensor's little-endian bytes, in hex. ``threads``
    hash a tensor each.
    """
    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            wait([pool.submit(getattr, tensor, "sha256") for tensor in tensors.values()])
    whole = sha256()
    for name in sorted(tensors, key=str.encode):
        tensor = tensors[name]
        whole.update(_line([name, tensor.dtype, list(tensor.shape), tensor.sha256]))
    return whole.hexdigest()


def digest_files(files: Mapping[str, bytes]) -> str:
    """Which config and tokenizer files these are: a manifest's ``config_digest``.

    As :func:`digest`, with a line ``["name",bytes,"sha256"]`` per file.
    """
    whole = sha256()
    for name in sorted(files, key=str.encode):
        content = files[name]
        whole.update(_line([name, len(content), sha256(content).hexdigest()]))
    return whole.hexdigest()


def _line(values: list[Any]) -> bytes:
    return json.dumps(values, separators=(",", ":"), ensure_ascii=True).encode() + b"\n"
