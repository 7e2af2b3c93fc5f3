"""One part of a stream: a run of bits to its bytes and back (see :mod:`tailrace.weights.codec`).

Pure numpy over at most a frame's elements; every function is a handful of passes over them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from tailrace.weights.tensors import Bits, Tensor

Sections: TypeAlias = tuple[bytes, bytes, bytes]
Positions: TypeAlias = npt.NDArray[np.intp]

_ESCAPE = 255
_DENSE_SHARE = 0.5
"""Both forms cost about H(d) + d·H(step) bits a weight at density d; coding by whole bits favours

gaps below a half and steps of all weights above.
"""


def steppable(old: Tensor, new: Tensor) -> bool:
    """Whether a tensor's change can be told in steps: 16-bit floats of one dtype and shape."""
    return old.dtype == new.dtype and old.shape == new.shape and new.bits.dtype.itemsize == 2


def equal_plain(old: Tensor, new: Tensor) -> bool:
    """Whether a tensor that cannot go in steps need not go at all."""
    same = old.dtype == new.dtype and old.shape == new.shape
    return same and not steppable(old, new) and bool(np.array_equal(old.bits, new.bits))


def step(base: Bits, new: Bits) -> tuple[str, Sections]:
    """The cheaper of ``gaps`` and ``dense`` for two runs of uint16. Equal runs have no gaps."""
    changed = np.flatnonzero(base != new)
    if changed.size > _DENSE_SHARE * base.size:
        return "dense", (planes(_zigzag(new - base)), b"", b"")
    zigzag = _zigzag(new[changed] - base[changed])
    zigzag -= np.uint16(1)
    wide = zigzag >= _ESCAPE
    wides = zigzag[wide].tobytes()
    zigzag[wide] = _ESCAPE
    return "gaps", (_gaps(changed), zigzag.astype(np.uint8).tobytes(), wides)


def planes(bits: Bits) -> bytes:
    """First bytes of all elements, then second bytes: exponents and mantissas compress apart."""
    if bits.dtype.itemsize == 1:
        return bits.tobytes()
    return bits.view(np.uint8).reshape(-1, bits.dtype.itemsize).T.tobytes()


def put(form: str, sections: Sequence[memoryview], target: Bits) -> None:
    """Write a part into ``target``, which holds the base's bits (``plain``: anything).

    Raises ValueError when the sections are not a part of that many elements.
    """
    first, steps, wides = sections
    if form == "plain":
        _put_planes(first, target)
    elif form == "dense":
        if len(first) != 2 * target.size or steps or wides:
            raise ValueError("dense steps do not fit")
        zigzag = np.empty_like(target)
        _put_planes(first, zigzag)
        target += _unzigzag(zigzag)
    elif form == "gaps":
        changed = _positions(first)
        if changed.size != len(steps) or (changed.size and changed[-1] >= target.size):
            raise ValueError("gaps do not fit")
        zigzag = np.frombuffer(steps, np.uint8).astype(np.uint16)
        wide = np.flatnonzero(zigzag == _ESCAPE)
        if len(wides) != 2 * wide.size:
            raise ValueError("wide steps do not fit")
        zigzag[wide] = np.frombuffer(wides, "<u2")
        zigzag += np.uint16(1)
        target[changed] += _unzigzag(zigzag)
    else:
        raise ValueError(f"unknown form {form!r}")


def _gaps(changed: Positions) -> bytes:
    """Positions, ascending, as bytes: the weights skipped before each, 255 at a time."""
    if not changed.size:
        return b""
    skipped = np.diff(changed, prepend=-1).astype(np.uint32)
    skipped -= np.uint32(1)
    if skipped.max() < _ESCAPE:
        return skipped.astype(np.uint8).tobytes()
    runs = skipped // np.uint32(_ESCAPE)
    ends = np.cumsum(runs + np.uint32(1), dtype=np.intp)
    out = np.full(ends[-1], _ESCAPE, np.uint8)
    out[ends - 1] = skipped - runs * np.uint32(_ESCAPE)
    return out.tobytes()


def _positions(gaps: memoryview) -> Positions:
    bytes_ = np.frombuffer(gaps, np.uint8)
    emits = bytes_ != _ESCAPE
    positions = np.cumsum(bytes_ + emits.astype(np.intp), dtype=np.intp)
    positions -= 1
    emitted: Positions = positions[emits]
    return emitted


def _put_planes(planes_bytes: memoryview, target: Bits) -> None:
    width = target.dtype.itemsize
    if len(planes_bytes) != width * target.size:
        raise ValueError("planes do not fit")
    source = np.frombuffer(planes_bytes, np.uint8).reshape(width, -1)
    target.view(np.uint8).reshape(-1, width)[:] = source.T


def _zigzag(steps: Bits) -> Bits:
    """Wrapping differences to small numbers for small steps: 0, -1, 1, -2, 2, ..."""
    signed = steps.view(np.int16)
    return ((signed << 1) ^ (signed >> 15)).view(np.uint16)


def _unzigzag(zigzag: Bits) -> Bits:
    return (zigzag >> np.uint16(1)) ^ (-(zigzag & np.uint16(1))).astype(np.uint16)
