"""The byte stream of an update, ``gaps-1``: what changed, in steps of the bf16 integers.

    16 bytes   b"tailrace-gaps-1\\n"
     4 + 4     little-endian: bytes of the table, compressed and not
    table      zstd of the JSON of :class:`Table`: every frame's length and what tensors it holds
    frames     zstd each, one behind the other, independent of each other

A frame holds parts: whole tensors, or rows of a large one, at most ``FRAME_WEIGHTS`` in all. A part
is

- ``gaps``: changed weights only. Their positions as gaps (weights skipped since the last change),
  one byte each, where 255 says "255 skipped and still none"; their steps ``new - base``, wrapping
  in 16 bits, zigzagged less one, one byte each, where 255 says "wide": the next of the uint16s
  behind.
- ``dense``: the steps of all weights, zigzagged, low bytes then high bytes.
- ``plain``: the bits themselves, first bytes of all elements, then second bytes, and so on.

The payload of a frame is all its parts' gaps, then all steps, then all wides (``dense`` and
``plain`` are in the first). 16-bit floats of the same name and shape go as gaps or dense;
everything else that differs is plain; what is not named is unchanged. A keyframe is a stream onto
nothing, all plain, with the config and tokenizer files in frames of their own behind.

:func:`encode_delta` and :func:`apply_delta` are exact on every bit pattern. The trainer encodes,
the store applies; who applies checks digests (:mod:`tailrace.weights.store`). :mod:`.table` is the
head of the stream, :mod:`.parts` codes a single part.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
import io
from typing import NamedTuple

import numpy as np
import zstandard

from tailrace.errors import UpdateRefused
from tailrace.weights import parts
from tailrace.weights.table import Frame, Part, Table, check, elements, expand, head, open_stream
from tailrace.weights.tensors import Bits, Tensor, Tensors, bits_dtype

FRAME_WEIGHTS = 4 * 1024 * 1024
"""Most elements of one frame: what is in memory beside the model while coding."""

_DELTA_LEVEL = 3
_KEYFRAME_LEVEL = 1


class Applied(NamedTuple):
    """What :func:`apply_delta` made."""

    tensors: Tensors
    undo: bytes | None
    """A delta stream that makes the base of ``tensors``, if it was asked for."""


def encode_delta(base: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> bytes:
    """The stream that makes ``new`` of exactly ``base``.

    Needs, beside both models, the stream and one frame.
    """
    removed = sorted(base.keys() - new.keys())
    return _encode("delta", base, new, removed, {}, _DELTA_LEVEL)


def encode_keyframe(tensors: Mapping[str, Tensor], files: Mapping[str, bytes]) -> bytes:
    """The stream that needs no base: all tensors, and the config and tokenizer files."""
    return _encode("keyframe", {}, tensors, [], files, _KEYFRAME_LEVEL)


def apply_delta(
    stream: bytes | memoryview, base: Mapping[str, Tensor], *, with_undo: bool = False
) -> Applied:
    """The new model: unchanged tensors are shared with ``base``, which stays as it is.

    Raises UpdateRefused (``corrupt``, ``truncated``, ``base``) for a stream that is none or does
    not fit. The result is the right one only if ``base`` was: compare digests.
    """
    table, frames = open_stream(stream)
    if table.kind != "delta":
        raise UpdateRefused("corrupt", f"a {table.kind}, not a delta")
    tensors = _apply(table, frames, base)
    for name in table.removed:
        if tensors.pop(name, None) is None:
            raise UpdateRefused("base", f"removed tensor {name!r} is not there")
    return Applied(tensors, encode_delta(tensors, base) if with_undo else None)


def decode_keyframe(stream: bytes | memoryview) -> tuple[Tensors, dict[str, bytes]]:
    """The tensors and files of a keyframe. Raises UpdateRefused as :func:`apply_delta`."""
    table, frames = open_stream(stream)
    if table.kind != "keyframe":
        raise UpdateRefused("corrupt", f"a {table.kind}, not a keyframe")
    tensors = _apply(table, frames, {})
    files = {}
    for (name, _, file_bytes), packed in zip(table.files, frames, strict=True):
        if not name or "/" in name or "\\" in name or name in (".", "..") or "\0" in name:
            raise UpdateRefused("corrupt", f"file name {name!r}")
        files[name] = bytes(expand(packed, file_bytes))
    return tensors, files


def _encode(
    kind: str,
    base: Mapping[str, Tensor],
    new: Mapping[str, Tensor],
    removed: list[str],
    files: Mapping[str, bytes],
    level: int,
) -> bytes:
    press = zstandard.ZstdCompressor(level=level)
    packed: deque[bytes] = deque()
    frames: list[Frame] = []
    for pieces in _groups(base, new):
        frame_parts: list[Part] = []
        regions: tuple[list[bytes], list[bytes], list[bytes]] = ([], [], [])
        for name, start, count in pieces:
            tensor = new[name]
            bits = tensor.bits[start : start + count]
            old = base.get(name)
            if old is not None and parts.steppable(old, tensor):
                form, sections = parts.step(old.bits[start : start + count], bits)
            else:
                form, sections = "plain", (parts.planes(bits), b"", b"")
            if count and form == "gaps" and not sections[0]:
                continue
            sizes = (len(sections[0]), len(sections[1]), len(sections[2]))
            for region, section in zip(regions, sections, strict=True):
                region.append(section)
            frame_parts.append(Part(name, tensor.dtype, tensor.shape, start, count, form, sizes))
        if not frame_parts:
            continue
        payload = b"".join(section for region in regions for section in region)
        del regions
        packed.append(press.compress(payload))
        frames.append(Frame(len(packed[-1]), len(payload), frame_parts))
    entries = []
    for name in sorted(files):
        packed.append(press.compress(files[name]))
        entries.append((name, len(packed[-1]), len(files[name])))
    out = io.BytesIO()
    out.write(head(Table(kind, frames, removed, entries)))
    while packed:  # gives each frame's memory back as it goes: one copy of the stream, not two
        out.write(packed.popleft())
    return out.getvalue()


def _groups(
    base: Mapping[str, Tensor], new: Mapping[str, Tensor]
) -> Iterator[list[tuple[str, int, int]]]:
    """(name, start, count) of all tensors that may differ, in groups of at most FRAME_WEIGHTS."""
    group: list[tuple[str, int, int]] = []
    room = FRAME_WEIGHTS
    for name, tensor in new.items():
        old = base.get(name)
        if old is tensor or (old is not None and parts.equal_plain(old, tensor)):
            continue
        for start, count in _pieces(tensor):
            if count > room and group:
                yield group
                group, room = [], FRAME_WEIGHTS
            group.append((name, start, count))
            room -= count
    if group:
        yield group


def _pieces(tensor: Tensor) -> Iterator[tuple[int, int]]:
    """A tensor whole, or in runs of rows (of elements, where one row is too large) that fit a
    frame."""
    total = tensor.bits.size
    row = max(1, total // tensor.shape[0]) if tensor.shape and tensor.shape[0] else 1
    length = FRAME_WEIGHTS // row * row or FRAME_WEIGHTS
    for start in range(0, max(total, 1), length):
        yield start, min(length, total - start)


def _apply(table: Table, frames: Iterator[memoryview], base: Mapping[str, Tensor]) -> Tensors:
    check(table, base)
    changed: dict[str, Bits] = {}
    for frame in table.frames:
        payload = expand(next(frames), frame.payload_bytes)
        at = [0, 0, 0]
        at[1] = sum(part.sizes[0] for part in frame.parts)
        at[2] = at[1] + sum(part.sizes[1] for part in frame.parts)
        for part in frame.parts:
            if part.name not in changed:
                changed[part.name] = _target(part, base)
            sections = []
            for region, size in enumerate(part.sizes):
                sections.append(payload[at[region] : at[region] + size])
                at[region] += size
            target = changed[part.name][part.start : part.start + part.count]
            try:
                parts.put(part.form, sections, target)
            except ValueError as error:
                raise UpdateRefused("corrupt", f"tensor {part.name!r}: {error}") from None
    shapes = {part.name: part for frame in table.frames for part in frame.parts}
    tensors = dict(base)
    for name, bits in changed.items():
        tensors[name] = Tensor.of(shapes[name].dtype, shapes[name].shape, bits)
    return tensors


def _target(part: Part, base: Mapping[str, Tensor]) -> Bits:
    if part.form != "plain":
        return base[part.name].bits.copy()
    return np.empty(elements(part), bits_dtype(part.dtype))
