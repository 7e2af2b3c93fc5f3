"""The payload of a frame in the form ``classes``: :class:`Changes` to bytes and back. Pure numpy.

    u32            number of classes that follow
    4 u32 each     class, changed weights, span, kind (0 gaps or 1 bitmap; 2 more: signs)
    each class     positions, steps
    u24 planes     gaps of 255 and more, of all classes
    planes         wide steps, of all classes

The span is the rank of the class's last changed weight, plus one. Positions are a gap each, or bits
over the span, first in the lowest. Steps are signs where all are 1 or -1 (a bit each, 1 for 1),
else ``z - 1`` each, z being the zigzag of the step (-1, 1, -2, 2 to 1, 2, 3, 4). Gaps and steps are
bytes; 255 says that the value is the next of those behind. Planes are the first bytes of all
values, then the second bytes, and so on.

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
_SIGNS = 2
_U8 = np.dtype("u1")
_U32 = np.dtype("<u4")


def most_bytes(weights: int, item_bytes: int) -> int:
    """No payload of that many weights is longer."""
    return 4 + 16 * 256 + weights * (1 + 3 + 1 + item_bytes)


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
        up = steps == 1
        if bool((up | (steps == np.iinfo(steps.dtype).max)).all()):
            kind |= _SIGNS
            pieces.append(np.packbits(up, bitorder="little").tobytes())
        else:
            pieces.append(_escaped(_zigzag(steps) - steps.dtype.type(1), wide))
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
    steps = np.empty(total, kind)
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
        if how & _SIGNS:
            steps[start:end] = reader.bits(changed)
            steps[start:end] *= kind.type(2)
            steps[start:end] -= kind.type(1)  # 0 wraps to -1
        else:
            zigzag = reader.array(_U8, changed)
            steps[start:end] = _unzigzag(zigzag.astype(kind) + kind.type(1))
            if kind.itemsize > 1:
                wide.append(np.flatnonzero(zigzag == _ESCAPE) + start)
            elif (zigzag == _ESCAPE).any():
                raise ValueError("a step of nothing")
        if how > _BITMAP | _SIGNS:
            raise ValueError(f"a class of kind {how}")
    escapes = np.concatenate([np.zeros(0, np.intp), *far])
    gaps[escapes] = reader.planes(_U32, 3, escapes.size)
    escapes = np.concatenate([np.zeros(0, np.intp), *wide])
    zigzag = reader.planes(kind, kind.itemsize, escapes.size) + kind.type(1)
    if not zigzag.all():
        raise ValueError("a step of nothing")
    steps[escapes] = _unzigzag(zigzag)
    reader.finish()
    starts = np.cumsum(heads[:, 1]) - heads[:, 1]
    if total and (np.add.reduceat(gaps, starts, dtype=np.int64) + heads[:, 1] != heads[:, 2]).any():
        raise ValueError("gaps and span differ")
    return Changes(counts, gaps, steps)


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


def _zigzag(steps: Bits) -> Bits:
    """Wrapping differences to small numbers for small steps: 0, -1, 1, -2, 2, ..."""
    signed = steps.view(np.dtype(f"i{steps.dtype.itemsize}"))
    zigzag: Bits = ((signed << 1) ^ (signed >> (8 * steps.dtype.itemsize - 1))).view(steps.dtype)
    return zigzag


def _unzigzag(zigzag: Bits) -> Bits:
    one = zigzag.dtype.type(1)
    steps: Bits = (zigzag >> one) ^ (-(zigzag & one)).astype(zigzag.dtype)
    return steps
