"""The table that opens a stream: which frames follow, and what tensors they hold.

Read before anything is allocated or decompressed: :func:`open_stream` refuses bytes that are no
stream, :func:`check` a table whose numbers do not add up or do not fit the base. Layout and meaning
are told in :mod:`tailrace.weights.codec`, the one caller.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import accumulate, pairwise
from math import prod
from typing import Any

import msgspec
import zstandard

from tailrace.errors import UpdateRefused
from tailrace.weights.classes import most_bytes
from tailrace.weights.tensors import ITEM_BYTES, Bits, Tensor, bits_dtype

CODEC = "classes-1"
MAGIC = f"tailrace-{CODEC}\n".encode()
FRAME_WEIGHTS = 1 << 24
"""No frame has more elements: what is in memory beside the model while coding. The compiled loops
count in 24 bits."""

_LEVEL = 3
_MAX_TABLE_BYTES = 256 * 1024 * 1024


class Part(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Elements ``[start, start + count)`` of the flat bits of one tensor."""

    name: str
    shape: tuple[int, ...]
    start: int
    count: int

    def of(self, tensor: Tensor) -> Bits:
        """These elements of the tensor, without a copy."""
        return tensor.bits[self.start : self.start + self.count]


class Frame(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One compressed unit: parts of one dtype."""

    bytes: int
    payload_bytes: int
    form: str
    """``classes`` or ``plain``."""
    dtype: str
    parts: list[Part]


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a stream holds."""

    kind: str
    """``delta`` or ``keyframe``."""
    frames: list[Frame]
    removed: list[str] = []
    """Tensors of the base that the new model lacks."""
    files: list[tuple[str, int, int]] = []
    """Name, bytes in the stream, bytes: a zstd frame each, behind the tensors' frames."""


def head(table: Table) -> bytes:
    """The bytes of a stream before its frames."""
    text = msgspec.json.encode(table)
    packed = zstandard.ZstdCompressor(level=_LEVEL).compress(text)
    return MAGIC + len(packed).to_bytes(4, "little") + len(text).to_bytes(4, "little") + packed


def open_stream(stream: bytes | memoryview) -> tuple[Table, list[memoryview]]:
    """The table of a stream, and its compressed frames in order (tensors', then files').

    Raises UpdateRefused: ``truncated`` when bytes are missing, ``codec`` when they are of another
    codec, ``corrupt`` when they are none of ours.
    """
    view = memoryview(stream)
    first = len(MAGIC) + 8
    if view[: len(MAGIC)] != MAGIC[: len(view)]:
        begin = bytes(view[: len(MAGIC)])
        reason = "codec" if begin.startswith(b"tailrace-") else "corrupt"
        raise UpdateRefused(reason, f"not a {CODEC} stream: {begin!r}")
    if len(view) < first:
        raise UpdateRefused("truncated", f"{len(view)} bytes")
    packed_bytes = int.from_bytes(view[len(MAGIC) : len(MAGIC) + 4], "little")
    table_bytes = int.from_bytes(view[len(MAGIC) + 4 : first], "little")
    if table_bytes > _MAX_TABLE_BYTES:
        raise UpdateRefused("corrupt", f"a table of {table_bytes} bytes")
    if len(view) < first + packed_bytes:
        raise UpdateRefused("truncated", "inside the table")
    text = expand(view[first : first + packed_bytes], table_bytes)
    try:
        table = msgspec.json.decode(text, type=Table)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UpdateRefused("corrupt", f"table: {error}") from None
    lengths = [frame.bytes for frame in table.frames] + [packed for _, packed, _ in table.files]
    if min(lengths, default=0) < 0:
        raise UpdateRefused("corrupt", "a frame of negative length")
    missing = first + packed_bytes + sum(lengths) - len(view)
    if missing:
        raise UpdateRefused("truncated" if missing > 0 else "corrupt", f"{missing} bytes missing")
    ends = list(accumulate(lengths, initial=first + packed_bytes))
    return table, [view[start:end] for start, end in pairwise(ends)]


def check(table: Table, packed: Sequence[memoryview]) -> dict[str, list[tuple[Frame, Part]]]:
    """The parts of each tensor that is not the base's, in order. Refuses a table whose numbers do
    not add up, before anything is allocated from them."""
    found: dict[str, list[tuple[Frame, Part]]] = {}
    for frame, content in zip(table.frames, packed, strict=False):
        _check_frame(frame, content)
        for part in frame.parts:
            _check_part(frame, part)
            found.setdefault(part.name, []).append((frame, part))
    for name, parts in found.items():
        end = 0
        kind = parts[0][0].form, parts[0][0].dtype, parts[0][1].shape
        for frame, part in parts:
            if (frame.form, frame.dtype, part.shape) != kind:
                raise UpdateRefused("corrupt", f"tensor {name!r}: parts of two kinds")
            if part.start < end or (part.start > end and frame.form == "plain"):
                raise UpdateRefused("corrupt", f"tensor {name!r}: parts overlap or are missing")
            end = part.start + part.count
        if kind[0] == "plain" and end != elements(frame.dtype, part.shape):
            raise UpdateRefused("corrupt", f"tensor {name!r}: the last part is missing")
    gone = {*table.removed}
    if len(gone) != len(table.removed) or gone & found.keys():
        raise UpdateRefused("corrupt", "a removed tensor is named twice")
    return found


def check_base(
    table: Table,
    entries: Sequence[Frame],
    base: Mapping[str, Tensor],
    names: Collection[str] | None,
) -> None:
    """Refuse a base without what these frames of the table, and its removals, are about."""
    for frame in entries:
        for part in frame.parts if frame.form == "classes" else ():
            old = base.get(part.name)
            if old is None or (old.dtype, old.shape) != (frame.dtype, part.shape):
                raise UpdateRefused("base", f"tensor {part.name!r} is not there or of another kind")
    for name in table.removed:
        if name not in base and (names is None or name in names):
            raise UpdateRefused("base", f"removed tensor {name!r} is not there")


def _check_frame(frame: Frame, content: memoryview) -> None:
    weights = sum(part.count for part in frame.parts)
    if frame.dtype not in ITEM_BYTES or frame.form not in ("classes", "plain") or not frame.parts:
        raise UpdateRefused("corrupt", f"a frame of {frame.form} {frame.dtype}")
    if min(part.count for part in frame.parts) < 0 or weights > FRAME_WEIGHTS:
        raise UpdateRefused("corrupt", f"a frame of {weights} elements")
    item_bytes = bits_dtype(frame.dtype).itemsize
    if frame.form == "plain":
        fits = frame.payload_bytes == weights * item_bytes
    else:
        fits = 4 <= frame.payload_bytes <= most_bytes(weights, item_bytes)
    # A block of zstd, 4 bytes at least, gives 128 KiB at most.
    if (
        not fits
        or frame.payload_bytes > len(content) << 15
        or (content_bytes(content) != frame.payload_bytes)
    ):
        raise UpdateRefused("corrupt", f"{frame.payload_bytes} bytes for {weights} elements")


def _check_part(frame: Frame, part: Part) -> None:
    if min(part.shape, default=0) < 0:
        raise UpdateRefused("corrupt", f"tensor {part.name!r}: {list(part.shape)}")
    if part.start < 0 or part.start + part.count > elements(frame.dtype, part.shape):
        raise UpdateRefused("corrupt", f"tensor {part.name!r}: a part outside of it")


def elements(dtype: str, shape: Sequence[int]) -> int:
    """Elements of a tensor's bits."""
    return prod(shape) * ITEM_BYTES[dtype] // bits_dtype(dtype).itemsize


def content_bytes(packed: memoryview) -> int:
    """What a zstd frame says of its length."""
    try:
        return zstandard.frame_content_size(packed)
    except zstandard.ZstdError as error:
        raise UpdateRefused("corrupt", str(error)) from None


def expand(packed: memoryview, expected_bytes: int) -> memoryview:
    """Decompress one frame of known size; a frame that lies about its size is not decompressed."""
    if content_bytes(packed) != expected_bytes:
        raise UpdateRefused("corrupt", "a frame of another length than the table says")
    try:
        # A declared size of 0 is read as unknown by zstandard, which then wants a bound of its own.
        content: Any = zstandard.ZstdDecompressor().decompress(
            packed, max_output_size=max(1, expected_bytes)
        )
    except zstandard.ZstdError as error:
        raise UpdateRefused("corrupt", str(error)) from None
    if len(content) != expected_bytes:
        raise UpdateRefused("corrupt", "a frame of another length than the table says")
    return memoryview(content)
