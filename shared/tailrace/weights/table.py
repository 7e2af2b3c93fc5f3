"""The table that opens a stream: which frames follow, and what tensors they hold.

Read before anything is allocated or decompressed: :func:`open_stream` refuses bytes that are no
stream, :func:`check` a table whose numbers do not add up or do not fit the base. Layout and meaning
are told in :mod:`tailrace.weights.codec`, the one caller.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any

import msgspec
import zstandard

from tailrace.errors import UpdateRefused
from tailrace.weights.tensors import ITEM_BYTES, Tensor, bits_dtype

CODEC = "gaps-1"
MAGIC = f"tailrace-{CODEC}\n".encode()

_LEVEL = 3
_MAX_TABLE_BYTES = 256 * 1024 * 1024


class Part(msgspec.Struct, frozen=True, array_like=True):
    """Elements ``[start, start + count)`` of the flat bits of one tensor."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    count: int
    form: str
    """``gaps``, ``dense`` or ``plain``."""
    sizes: tuple[int, int, int]
    """Bytes in the payload's three regions: gaps (or dense, plain), steps, wides."""


class Frame(msgspec.Struct, frozen=True, array_like=True):
    """One compressed unit."""

    bytes: int
    payload_bytes: int
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


def open_stream(stream: bytes | memoryview) -> tuple[Table, Iterator[memoryview]]:
    """The table of a stream, and its compressed frames in order (tensors', then files').

    Raises UpdateRefused: ``truncated`` when bytes are missing, ``corrupt`` when they are none of
    ours.
    """
    view = memoryview(stream)
    first = len(MAGIC) + 8
    if len(view) < first:
        raise UpdateRefused("truncated", f"{len(view)} bytes")
    if view[: len(MAGIC)] != MAGIC:
        raise UpdateRefused("corrupt", f"not a {CODEC} stream")
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
    return table, _slices(view, first + packed_bytes, lengths)


def check(table: Table, base: Mapping[str, Tensor]) -> None:
    """Refuse a table whose numbers do not add up, before anything is allocated from them."""
    first: dict[str, Part] = {}
    covered: dict[str, int] = {}
    for frame in table.frames:
        sizes = [size for part in frame.parts for size in part.sizes]
        if min(sizes, default=0) < 0 or sum(sizes) != frame.payload_bytes:
            raise UpdateRefused("corrupt", "a frame's parts do not add up")
        for part in frame.parts:
            _check_part(part, base)
            known = first.setdefault(part.name, part)
            if (known.dtype, known.shape) != (part.dtype, part.shape) or (
                (known.form == "plain") != (part.form == "plain")
            ):
                raise UpdateRefused("corrupt", f"tensor {part.name!r}: parts of two kinds")
            if part.start < covered.get(part.name, 0):
                raise UpdateRefused("corrupt", f"tensor {part.name!r}: parts overlap")
            if part.form == "plain" and part.start != covered.get(part.name, 0):
                raise UpdateRefused("corrupt", f"tensor {part.name!r}: a part is missing")
            covered[part.name] = part.start + part.count
    for name, part in first.items():
        if part.form == "plain" and covered[name] != elements(part):
            raise UpdateRefused("corrupt", f"tensor {name!r}: the last part is missing")


def _check_part(part: Part, base: Mapping[str, Tensor]) -> None:
    if part.dtype not in ITEM_BYTES or min(part.shape, default=0) < 0:
        raise UpdateRefused("corrupt", f"tensor {part.name!r}: {part.dtype}{list(part.shape)}")
    if part.start < 0 or part.count < 0 or part.start + part.count > elements(part):
        raise UpdateRefused("corrupt", f"tensor {part.name!r}: a part outside of it")
    if part.form == "plain":
        if part.sizes != (part.count * bits_dtype(part.dtype).itemsize, 0, 0):
            raise UpdateRefused("corrupt", f"tensor {part.name!r}: plain bytes do not fit")
        return
    old = base.get(part.name)
    if old is None or (old.dtype, old.shape) != (part.dtype, part.shape):
        raise UpdateRefused("base", f"tensor {part.name!r} is not there or of another kind")
    if bits_dtype(part.dtype).itemsize != 2:
        raise UpdateRefused("corrupt", f"tensor {part.name!r}: steps of {part.dtype}")


def elements(part: Part) -> int:
    """Elements of the tensor's bits."""
    return prod(part.shape) * ITEM_BYTES[part.dtype] // bits_dtype(part.dtype).itemsize


def _slices(view: memoryview, start: int, lengths: Sequence[int]) -> Iterator[memoryview]:
    for length in lengths:
        yield view[start : start + length]
        start += length


def expand(packed: memoryview, expected_bytes: int) -> memoryview:
    """Decompress one frame of known size; a frame that lies about its size is not decompressed."""
    try:
        if zstandard.frame_content_size(packed) != expected_bytes:
            raise UpdateRefused("corrupt", "a frame of another length than the table says")
        # A declared size of 0 is read as unknown by zstandard, which then wants a bound of its own.
        content: Any = zstandard.ZstdDecompressor().decompress(
            packed, max_output_size=max(1, expected_bytes)
        )
    except zstandard.ZstdError as error:
        raise UpdateRefused("corrupt", str(error)) from None
    if len(content) != expected_bytes:
        raise UpdateRefused("corrupt", "a frame of another length than the table says")
    return memoryview(content)
