"""The payload of a frame in the form ``classes``: :class:`Changes` to bytes and back. Pure numpy.

    u32            number of classes that follow
    4 u32 each     class, changed weights, span, kind (0 gaps or 1 bitmap; 2 more: all steps are 1)
    each class     positions, signs, which steps are above 1, those steps
    u24 planes     gaps of 255 and more, of all classes
    planes         sizes of 255 and more, of all classes

The span is the rank of the class's last changed weight, plus one. Positions are a gap each, or bits
over the span, first in the lowest. Signs are a bit each, 1 for up; so is which steps are above 1,
and those are told by their size less 2. Gaps and sizes are bytes; 255 says that the number is the
next of those behind. Planes are the first bytes of all numbers, then the second bytes, and so on.
zstd spends at least a bit on a byte, so what has less than that in it is told in bits.

Sections come one by one, so that who compresses can end a block between them: each has statistics
of its own. Called by :mod:`tailrace.weights.frames`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from tailrace.weights.changes import Changes, Rule
from tailrace.weights.tensors import Bits

_ESCAPE = 255
_BITMAP = 1
_ONES = 2
_U8 = np.dtype("u1")
_U32 = np.dtype("<u4")


def most_bytes(weights: int, item_bytes: int) -> int:
    """No payload of that many weights is longer."""
    return 4 + (16 + 3) * 256 + weights * (1 + 3 + 1 + 1 + item_bytes)


def sections(changes: Changes) -> Iterator[bytes]:
    """The payload, in pieces."""
    numbers = np.flatnonzero(changes.counts)
    heads = np.zeros((numbers.size, 4), _U32)
    pieces: list[bytes] = []
    far: list[npt.NDArray[Any]] = []
    wide: list[npt.NDArray[Any]] = []
    end = 0
    for head, number in zip(heads, numbers, strict=True):
        start, end = end, end + int(changes.counts[number])
        gaps, steps = changes.gaps[start:end], changes.steps[start:end]
        span = int(gaps.sum(dtype=np.int64)) + gaps.size
        # At a quarter both take 3.2 bits a change; a Huffman code wastes more on denser gaps.
        kind = _BITMAP if 4 * gaps.size > span else 0
        if kind:
            marks = np.zeros(span, np.uint8)
            marks[np.cumsum(gaps + np.uint32(1), dtype=np.int64) - 1] = 1
            pieces.append(np.packbits(marks, bitorder="little").tobytes())
        else:
            pieces.append(_escaped(gaps, far))
        up = steps.view(np.dtype(f"i{steps.itemsize}")) > 0
        sizes = np.where(up, steps, steps.dtype.type(0) - steps)
        above = sizes > 1
        pieces.append(np.packbits(up, bitorder="little").tobytes())
        if above.any():
            pieces.append(np.packbits(above, bitorder="little").tobytes())
            pieces.append(_escaped(sizes[above] - steps.dtype.type(2), wide))
        else:
            kind |= _ONES
        head[:] = number, gaps.size, span, kind
    yield np.uint32(numbers.size).astype(_U32).tobytes() + heads.tobytes()
    yield from pieces
    yield _planes(far, 3)
    yield _planes(wide, changes.steps.dtype.itemsize)


def parse(payload: memoryview, kind: np.dtype[Any], weights: int, by: Rule) -> Changes:
    """What :func:`sections` told. Raises ValueError for bytes that are no payload of at most
    ``weights`` weights."""
    reader = _Reader(payload)
    (many,) = reader.array(_U32, 1)
    if many > by.mask + 1:
        raise ValueError(f"{many} classes")
    heads = reader.array(_U32, 4 * int(many)).reshape(-1, 4).astype(np.int64)
    if (np.diff(heads[:, 0], prepend=-1) <= 0).any() or (heads[:, 0] > by.mask).any():
        raise ValueError("classes out of order")
    if heads[:, 2].sum() > weights or (heads[:, 1] > heads[:, 2]).any() or (heads[:, 1] < 1).any():
        raise ValueError("more changes than weights")
    total = int(heads[:, 1].sum())
    if total > 8 * len(payload):
        raise ValueError("more changes than bits")
    counts = np.zeros(256, np.int64)
    counts[heads[:, 0]] = heads[:, 1]
    gaps = np.empty(total, np.uint32)
    sizes = np.ones(total, kind)
    up = np.empty(total, np.bool_)
    far: list[npt.NDArray[np.intp]] = []
    wide: list[npt.NDArray[np.intp]] = []
    end = 0
    for changed, span, how in heads[:, 1:].tolist():
        start, end = end, end + changed
        if how & _BITMAP:
            gaps[start:end] = _unmarked(reader.bits(span), changed)
        else:
            gaps[start:end] = reader.array(_U8, changed)
            far.append(np.flatnonzero(gaps[start:end] == _ESCAPE) + start)
        up[start:end] = reader.bits(changed)
        if not how & _ONES:
            above = np.flatnonzero(reader.bits(changed)) + start
            less = reader.array(_U8, above.size)
            sizes[above] = less.astype(kind) + kind.type(2)
            wide.append(above[less == _ESCAPE])
        if how > _BITMAP | _ONES:
            raise ValueError(f"a class of kind {how}")
    escapes = np.concatenate([np.zeros(0, np.intp), *far])
    gaps[escapes] = reader.planes(_U32, 3, escapes.size)
    escapes = np.concatenate([np.zeros(0, np.intp), *wide])
    sizes[escapes] = reader.planes(kind, kind.itemsize, escapes.size) + kind.type(2)
    if not sizes.all():
        raise ValueError("a step of nothing")
    reader.finish()
    starts = np.cumsum(heads[:, 1]) - heads[:, 1]
    if total and (np.add.reduceat(gaps, starts, dtype=np.int64) + heads[:, 1] != heads[:, 2]).any():
        raise ValueError("gaps and span differ")
    return Changes(counts, gaps, np.where(up, sizes, kind.type(0) - sizes))


class _Reader:
    """A payload, from its beginning. Everything raises ValueError where too little is left."""

    def __init__(self, payload: memoryview) -> None:
        self._payload = payload
        self._at = 0

    def array(self, kind: np.dtype[Any], count: int) -> npt.NDArray[Any]:
        found = np.frombuffer(self._payload, kind, count, self._at) if count else np.empty(0, kind)
        self._at += found.nbytes
        return found

    def bits(self, count: int) -> npt.NDArray[np.uint8]:
        return np.unpackbits(self.array(_U8, -(-count // 8)), count=count, bitorder="little")

    def planes(self, kind: np.dtype[Any], item_bytes: int, count: int) -> npt.NDArray[Any]:
        values = np.zeros((count, kind.itemsize), np.uint8)
        values[:, :item_bytes] = self.array(_U8, item_bytes * count).reshape(item_bytes, count).T
        return values.view(kind).reshape(count)

    def finish(self) -> None:
        if self._at != len(self._payload):
            raise ValueError("bytes behind the last class")


def _escaped(values: Bits, escaped: list[Bits]) -> bytes:
    """Values as bytes; those of 255 and more are added to ``escaped``."""
    over = values >= _ESCAPE
    if over.any():
        escaped.append(values[over])
    small: npt.NDArray[np.uint8] = np.minimum(values, values.dtype.type(_ESCAPE)).astype(np.uint8)
    return small.tobytes()


def _planes(values: list[Bits], item_bytes: int) -> bytes:
    if not values:
        return b""
    whole = np.concatenate(values)
    return whole.view(np.uint8).reshape(whole.size, -1)[:, :item_bytes].T.tobytes()


def _unmarked(marks: npt.NDArray[np.uint8], changed: int) -> npt.NDArray[np.intp]:
    """The gaps of a bitmap."""
    ranks = np.flatnonzero(marks)
    if ranks.size != changed:
        raise ValueError("a bitmap of another number of changes")
    return np.diff(ranks, prepend=-1) - 1
