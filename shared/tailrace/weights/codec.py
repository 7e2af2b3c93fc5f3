"""The byte stream of an update, ``classes-1``: what changed, in steps of the weights' integers.

    19 bytes   b"tailrace-classes-1\\n"
     4 + 4     little-endian: bytes of the table, compressed and not
    table      zstd of the JSON of :class:`Table`: every frame's length and what tensors it holds
    frames     zstd each, one behind the other, independent of each other

A weight's exponent, which both sides know from the base, predicts whether and how far it moves: a
step of one size is many units of a small weight and none of a large one. So a change is told by the
rank of the weight among those of its exponent, and what is told of one exponent lies together
(:mod:`.classes`). A frame holds whole tensors, or rows of a large one, of one dtype; a tensor that
is new, or so different that steps cost more than bits, goes ``plain`` (:mod:`.frames`). What is not
named is unchanged. A keyframe is a stream onto nothing, all plain, with the config and tokenizer
files in frames of their own behind.

:func:`encode_delta` and :func:`apply_delta` are exact on every bit pattern. The trainer encodes,
the store applies; who applies checks digests (:mod:`tailrace.weights.store`). ``threads`` code a
frame each; beside the models and the stream, that is all the memory. docs/weights.md describes the
format for others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
import io
from typing import NamedTuple, TypeVar

import numpy as np
import zstandard

from tailrace.errors import UpdateRefused
from tailrace.weights import frames
from tailrace.weights.frames import Packed
from tailrace.weights.table import (
    FRAME_WEIGHTS,
    Frame,
    Part,
    Table,
    check,
    check_base,
    elements,
    expand,
    head,
    open_stream,
)
from tailrace.weights.tensors import Bits, Tensor, Tensors, bits_dtype

_T = TypeVar("_T")
_R = TypeVar("_R")


class Applied(NamedTuple):
    """What :func:`apply_delta` made."""

    tensors: Tensors
    undo: bytes | None
    """A delta stream that makes the base of ``tensors``, if it was asked for."""


def encode_delta(
    base: Mapping[str, Tensor],
    new: Mapping[str, Tensor],
    *,
    threads: int = 1,
    frame_weights: int = FRAME_WEIGHTS,
) -> bytes:
    """The stream that makes ``new`` of exactly ``base``.

    Frames hold at most ``frame_weights`` elements, at most FRAME_WEIGHTS: smaller ones take less
    memory and a few percent more bytes.
    """
    assert 0 < frame_weights <= FRAME_WEIGHTS
    removed = sorted(base.keys() - new.keys())
    return _join("delta", _encoded(base, new, threads, frame_weights), removed, {})


def encode_keyframe(
    tensors: Mapping[str, Tensor],
    files: Mapping[str, bytes],
    *,
    threads: int = 1,
    frame_weights: int = FRAME_WEIGHTS,
) -> bytes:
    """The stream that needs no base: all tensors, and the config and tokenizer files."""
    assert 0 < frame_weights <= FRAME_WEIGHTS
    return _join("keyframe", _encoded({}, tensors, threads, frame_weights), [], files)


def apply_delta(
    stream: bytes | memoryview,
    base: Mapping[str, Tensor],
    *,
    with_undo: bool = False,
    names: Collection[str] | None = None,
    threads: int = 1,
) -> Applied:
    """The new model: unchanged tensors are shared with ``base``, which stays as it is.

    ``names``: only these tensors (a shard; names that the new model lacks are passed over). Frames
    without them are not read, and ``base`` needs only what :func:`needed` says. A shard has no
    undo.

    Raises UpdateRefused (``corrupt``, ``truncated``, ``codec``, ``base``) for a stream that is none
    or does not fit. The result is the right one only if ``base`` was: compare digests.
    """
    assert not (with_undo and names is not None), "a shard has no undo"
    table, packed = _open(stream, "delta")
    changed, undone = _decoded(table, packed, base, names, with_undo, threads)
    kept = base if names is None else {name: base[name] for name in names if name in base}
    gone = {*table.removed}
    tensors = {name: tensor for name, tensor in kept.items() if name not in gone} | changed
    if not with_undo:
        return Applied(tensors, None)
    plain = {part.name for frame in table.frames if frame.form == "plain" for part in frame.parts}
    lost = {name: tensor for name, tensor in base.items() if name in plain or name in gone}
    undo = [*undone, *_encoded({}, lost, threads, FRAME_WEIGHTS)]
    return Applied(tensors, _join("delta", undo, sorted(tensors.keys() - base.keys()), {}))


def needed(stream: bytes | memoryview, names: Collection[str]) -> set[str]:
    """Which tensors of the base :func:`apply_delta` needs to make these."""
    table, _ = _open(stream, "delta")
    return {*names} | {
        part.name
        for frame in table.frames
        if frame.form == "classes" and _has(frame, names)
        for part in frame.parts
    }


def decode_keyframe(
    stream: bytes | memoryview, *, names: Collection[str] | None = None, threads: int = 1
) -> tuple[Tensors, dict[str, bytes]]:
    """The tensors (those of ``names``) and files of a keyframe. Raises UpdateRefused as
    :func:`apply_delta`."""
    table, packed = _open(stream, "keyframe")
    if any(frame.form != "plain" for frame in table.frames) or table.removed:
        raise UpdateRefused("corrupt", "a keyframe of something else")
    tensors, _ = _decoded(table, packed, {}, names, False, threads)
    files = {}
    for (name, _, file_bytes), content in zip(
        table.files, packed[len(table.frames) :], strict=True
    ):
        if not name or "/" in name or "\\" in name or name in (".", "..") or "\0" in name:
            raise UpdateRefused("corrupt", f"file name {name!r}")
        files[name] = bytes(expand(content, file_bytes))
    return tensors, files


def _open(stream: bytes | memoryview, kind: str) -> tuple[Table, list[memoryview]]:
    table, packed = open_stream(stream)
    if table.kind != kind:
        raise UpdateRefused("corrupt", f"a {table.kind}, not a {kind}")
    return table, packed


def _encoded(
    base: Mapping[str, Tensor], new: Mapping[str, Tensor], threads: int, frame_weights: int
) -> list[Packed]:
    drafts = frames.plan(base, new, frame_weights)
    return list(_each(lambda draft: frames.encode(draft, base, new), drafts, threads))


def _join(
    kind: str, packed: Iterable[Packed], removed: list[str], files: Mapping[str, bytes]
) -> bytes:
    entries: list[Frame] = []
    contents: deque[bytes] = deque()
    for frame in packed:
        entries.append(frame.entry)
        contents.append(frame.content)
    press = zstandard.ZstdCompressor(level=1)
    listed = []
    for name in sorted(files):
        contents.append(press.compress(files[name]))
        listed.append((name, len(contents[-1]), len(files[name])))
    out = io.BytesIO()
    out.write(head(Table(kind, entries, removed, listed)))
    del packed
    while contents:  # gives each frame's memory back as it goes: one copy of the stream, not two
        out.write(contents.popleft())
    return out.getvalue()


def _decoded(
    table: Table,
    packed: list[memoryview],
    base: Mapping[str, Tensor],
    names: Collection[str] | None,
    with_undo: bool,
    threads: int,
) -> tuple[Tensors, list[Packed]]:
    """The tensors that a stream names (of ``names``), and the frames that undo its steps."""
    found = check(table, packed)
    work = [
        (frame, content)
        for frame, content in zip(table.frames, packed, strict=False)
        if names is None or _has(frame, names)
    ]
    check_base(table, [frame for frame, _ in work], base, names)
    kinds: dict[str, tuple[Frame, Part]] = {}
    target: dict[str, Bits] = {}
    for name, parts in found.items():
        if names is None or name in names:
            frame, part = kinds[name] = parts[0]
            total = elements(frame.dtype, part.shape)
            if sum(part.count for _, part in parts) == total:
                target[name] = np.empty(total, bits_dtype(frame.dtype))
            else:
                target[name] = base[name].bits.copy()

    def decode(item: tuple[Frame, memoryview]) -> Packed | None:
        return frames.decode(*item, base, target, with_undo=with_undo)

    undone = [undo for undo in _each(decode, work, threads) if undo is not None]
    tensors = {
        name: Tensor.of(frame.dtype, part.shape, target[name])
        for name, (frame, part) in kinds.items()
    }
    return tensors, undone


def _has(frame: Frame, names: Collection[str]) -> bool:
    return any(part.name in names for part in frame.parts)


def _each(function: Callable[[_T], _R], items: Iterable[_T], threads: int) -> Iterator[_R]:
    """The results in order; each thread has one item in work."""
    if threads == 1:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(threads) as pool:
        yield from pool.map(function, items)
