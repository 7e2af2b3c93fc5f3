"""Frames: a group of parts of one dtype to compressed bytes and back.

``classes`` tells the changes of the parts (:mod:`.changes`, :mod:`.classes`), ``plain`` the bits
themselves: first bytes of all elements of a part, then second bytes, and so on. :func:`plan`
decides what goes how. A frame needs nothing but its parts of the base, so frames are coded in any
order, by any thread. Called by :mod:`tailrace.weights.codec`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import zstandard

from tailrace.errors import UpdateRefused
from tailrace.weights import changes, classes
from tailrace.weights.table import Frame, Part, expand
from tailrace.weights.tensors import Bits, Tensor, bits_dtype

_LEVEL = 1
"""What is left after the classes is entropy: higher levels take longer and find nothing."""
_SAMPLE = 1 << 16
"""Weights by which the form of a tensor is judged, and those that are compared at once."""
_LITTLE = 8
_BLOCK_BYTES = 512
"""Sections shorter than this share a code: the head of a block costs more than it saves."""


class Draft(NamedTuple):
    """A frame that is to be made."""

    form: str
    dtype: str
    parts: list[Part]


class Packed(NamedTuple):
    """A frame that was made, and its entry in the table."""

    entry: Frame
    content: bytes


def plan(base: Mapping[str, Tensor], new: Mapping[str, Tensor], limit: int) -> list[Draft]:
    """What has to go so that ``new`` comes of ``base``, in frames of at most ``limit`` elements."""
    groups: dict[tuple[str, str], list[Part]] = {}
    for name, tensor in new.items():
        old = base.get(name)
        if old is tensor:
            continue
        parts = list(_pieces(name, tensor, limit))
        form = "plain"
        if old is not None and (old.dtype, old.shape) == (tensor.dtype, tensor.shape):
            form = _form(old, tensor)
            differing = [part for part in parts if not _same(part.of(old), part.of(tensor))]
            # A plain tensor goes whole: its receiver need not have the same one.
            parts = differing if form == "classes" or not differing else parts
        groups.setdefault((form, tensor.dtype), []).extend(parts)
    drafts: list[Draft] = []
    for (form, dtype), parts in groups.items():
        room = -1
        for part in parts:
            if part.count > room:
                drafts.append(Draft(form, dtype, []))
                room = limit
            drafts[-1].parts.append(part)
            room -= part.count
    return drafts


def encode(draft: Draft, base: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> Packed:
    """The frame of a draft."""
    after = [part.of(new[part.name]) for part in draft.parts]
    if draft.form == "plain":
        return _pack(draft, [plane for bits in after for plane in _planes(bits)])
    before = [part.of(base[part.name]) for part in draft.parts]
    found = changes.find(before, after, changes.rule(draft.dtype))
    return _pack(draft, list(classes.sections(found)))


def decode(
    entry: Frame,
    content: memoryview,
    base: Mapping[str, Tensor],
    target: Mapping[str, Bits],
    *,
    with_undo: bool,
) -> Packed | None:
    """Write a frame's parts into the arrays of ``target``, those that are there. With undo, and of
    the form ``classes``: the frame that leads back.

    Raises UpdateRefused (``corrupt``) for a payload that is none.
    """
    payload = expand(content, entry.payload_bytes)
    if entry.form == "plain":
        at = 0
        for part in entry.parts:
            part_bytes = part.count * bits_dtype(entry.dtype).itemsize
            if part.name in target:
                bits = target[part.name][part.start : part.start + part.count]
                _put_planes(payload[at : at + part_bytes], bits)
            at += part_bytes
        return None
    after = [
        target[part.name][part.start : part.start + part.count]
        if part.name in target
        else np.empty(part.count, bits_dtype(entry.dtype))
        for part in entry.parts
    ]
    before = [part.of(base[part.name]) for part in entry.parts]
    by = changes.rule(entry.dtype)
    weights = sum(part.count for part in entry.parts)
    try:
        found = classes.parse(payload, bits_dtype(entry.dtype), weights, by)
        undo = changes.put(before, after, by, found, with_undo=with_undo)
    except ValueError as error:
        raise UpdateRefused("corrupt", f"frame of {entry.parts[0].name!r}: {error}") from None
    if undo is None:
        return None
    return _pack(Draft(entry.form, entry.dtype, entry.parts), list(classes.sections(undo)))


def _pack(draft: Draft, sections: list[bytes]) -> Packed:
    """Compress a payload; sections worth a code of their own begin a block of zstd."""
    payload_bytes = sum(map(len, sections))
    press = zstandard.ZstdCompressor(level=_LEVEL).compressobj(size=payload_bytes)
    out = []
    pending_bytes = 0
    for section in sections:
        out.append(press.compress(section))
        pending_bytes += len(section)
        if pending_bytes >= _BLOCK_BYTES:
            out.append(press.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK))
            pending_bytes = 0
    out.append(press.flush())
    content = b"".join(out)
    entry = Frame(len(content), payload_bytes, draft.form, draft.dtype, draft.parts)
    return Packed(entry, content)


def _pieces(name: str, tensor: Tensor, limit: int) -> Iterator[Part]:
    """A tensor whole, or in runs of rows (of elements, where one row is too large) that fit a
    frame."""
    total = tensor.bits.size
    row = max(1, total // tensor.shape[0]) if tensor.shape and tensor.shape[0] else 1
    length = limit // row * row or limit
    for start in range(0, max(total, 1), length):
        yield Part(name, tensor.shape, start, min(length, total - start))


def _form(old: Tensor, new: Tensor) -> str:
    """The cheaper form for a tensor that both sides have, judged by a sample of its weights.

    Where half of the weights move little, steps are cheaper than bits without a trial.
    """
    stride = max(1, old.bits.size // _SAMPLE)
    before = np.ascontiguousarray(old.bits[::stride])
    after = np.ascontiguousarray(new.bits[::stride])
    kind = before.dtype.type
    far = after - before + kind(_LITTLE) > kind(2 * _LITTLE)
    if 2 * int(far.sum()) <= far.size:
        return "classes"
    before.flags.writeable = after.flags.writeable = False  # one kind of array to compile for
    found = changes.find([before], [after], changes.rule(old.dtype))
    draft = Draft("", old.dtype, [])
    as_classes = len(_pack(draft, list(classes.sections(found))).content)
    return "classes" if as_classes < len(_pack(draft, _planes(after)).content) else "plain"


def _same(left: Bits, right: Bits) -> bool:
    """Whether two runs are equal: found out at the first difference, in little memory."""
    return all(
        np.array_equal(left[at : at + _SAMPLE], right[at : at + _SAMPLE])
        for at in range(0, left.size, _SAMPLE)
    )


def _planes(bits: Bits) -> list[bytes]:
    """First bytes of all elements, then second bytes: exponents and mantissas compress apart."""
    width = bits.dtype.itemsize
    return [plane.tobytes() for plane in bits.view(np.uint8).reshape(-1, width).T]


def _put_planes(planes: memoryview, target: Bits) -> None:
    width = target.dtype.itemsize
    target.view(np.uint8).reshape(-1, width)[:] = (
        np.frombuffer(planes, np.uint8).reshape(width, -1).T
    )
