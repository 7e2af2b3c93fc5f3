"""Which weights differ between two runs of bits, told per exponent class, and the way back.

In and out: the parts of one frame, at most 2**24 weights of one dtype, as arrays of bits. The
changes of all parts are told together. What always holds: ``put(old, find(old, new))`` is ``new``
bit for bit, and the changes that it yields are those of ``find(new, old)``. Called by
:mod:`tailrace.weights.frames`; compiled where numba is installed (:mod:`.kernels`), else the same
in numpy, some ten times slower.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tailrace.weights.kernels import GAP_BITS, NEVER, Kernels, compiled
from tailrace.weights.tensors import Bits

Counts = npt.NDArray[np.int64]


class Rule(NamedTuple):
    """How the class of a weight is read from its bits: ``(bits >> shift) & mask``."""

    shift: int
    mask: int


def rule(dtype: str) -> Rule:
    """The exponent of floats that are coded as 16 or 32 bits; bytes are all of one class."""
    if dtype == "bfloat16":
        return Rule(7, 0xFF)
    if dtype == "float16":
        return Rule(10, 0x1F)
    if dtype == "float32":
        return Rule(23, 0xFF)
    return Rule(0, 0)


class Changes(NamedTuple):
    """The weights that changed, ordered by class, then by place."""

    counts: Counts
    """Changed weights of each class (256)."""
    gaps: npt.NDArray[np.uint32]
    """For each changed weight, those of its class that are passed over since the last one."""
    steps: Bits
    """For each ``new - old``, wrapping, never 0; the type of the bits."""


def find(old: Sequence[Bits], new: Sequence[Bits], by: Rule) -> Changes:
    """How ``new`` differs from ``old``. Classes are those of ``old``."""
    kernels = compiled()
    if kernels is None:
        return _find(old, new, by)
    total = sum(part.size for part in old)
    places = np.empty(total // 16 + 64, np.uint32)
    steps = np.empty(places.size, old[0].dtype)
    passed = np.zeros(256, np.int64)
    filled = 0
    for before, after in zip(old, new, strict=True):
        at = 0
        while True:
            at, filled = kernels.scan(
                before, after, at, by.shift, by.mask, passed, places, steps, filled
            )
            if at == before.size:
                break
            room = min(2 * places.size, total)
            places = np.resize(places, room)
            steps = np.resize(steps, room)
    return _group(kernels, places[:filled], steps[:filled])


def put(
    old: Sequence[Bits], new: Sequence[Bits], by: Rule, changes: Changes, *, with_undo: bool
) -> Changes | None:
    """Write ``old`` with its changes into ``new``; with_undo: the changes that lead back.

    Raises ValueError where the changes are not of these bits.
    """
    kernels = compiled()
    if kernels is None:
        return _put(old, new, by, changes, with_undo)
    ends = np.cumsum(changes.counts)
    starts = ends - changes.counts
    state = np.zeros((7, 256), np.int64)
    state[0] = NEVER
    some = changes.counts > 0
    state[0, some] = changes.gaps[starts[some]]
    state[1] = state[0]
    state[2] = starts
    state[3] = ends
    state[4] = -1
    state[6] = -1
    room = changes.gaps.size if with_undo else 0
    places = np.empty(room, np.uint32)
    back = np.empty(room, changes.steps.dtype)
    filled = 0
    for before, after in zip(old, new, strict=True):
        filled = kernels.put(
            before,
            after,
            by.shift,
            by.mask,
            changes.gaps,
            changes.steps,
            state,
            places,
            back,
            filled,
        )
    if not np.array_equal(state[2], ends):
        raise ValueError("changes behind the last weight of a class")
    return _group(kernels, places, back) if with_undo else None


def _group(kernels: Kernels, places: npt.NDArray[np.uint32], steps: Bits) -> Changes:
    counts = np.bincount(places >> np.uint32(GAP_BITS), minlength=256)
    gaps = np.empty(places.size, np.uint32)
    grouped = np.empty_like(steps)
    kernels.group(places, steps, np.cumsum(counts) - counts, gaps, grouped)
    return Changes(counts, gaps, grouped)


def _classes(bits: Bits, by: Rule) -> npt.NDArray[np.uint8]:
    kind = bits.dtype.type
    classes: npt.NDArray[np.uint8] = ((bits >> kind(by.shift)) & kind(by.mask)).astype(np.uint8)
    return classes


def _find(old: Sequence[Bits], new: Sequence[Bits], by: Rule) -> Changes:
    bits = np.concatenate(old)
    classes = _classes(bits, by)
    steps = np.concatenate(new) - bits
    changed = steps != 0
    counts = np.bincount(classes[changed], minlength=256)
    gaps = [np.zeros(0, np.uint32)]
    grouped = [steps[:0]]
    for number in np.flatnonzero(counts):
        members = np.flatnonzero(classes == number)
        ranks = np.flatnonzero(changed[members])
        gaps.append((np.diff(ranks, prepend=-1) - 1).astype(np.uint32))
        grouped.append(steps[members[ranks]])
    return Changes(counts, np.concatenate(gaps), np.concatenate(grouped))


def _put(
    old: Sequence[Bits], new: Sequence[Bits], by: Rule, changes: Changes, with_undo: bool
) -> Changes | None:
    bits = np.concatenate(old)
    classes = _classes(bits, by)
    end = 0
    for number in np.flatnonzero(changes.counts):
        start, end = end, end + int(changes.counts[number])
        members = np.flatnonzero(classes == number)
        ranks = np.cumsum(changes.gaps[start:end].astype(np.int64) + 1) - 1
        if ranks[-1] >= members.size:
            raise ValueError("changes behind the last weight of a class")
        bits[members[ranks]] += changes.steps[start:end]
    at = 0
    for part in new:
        part[:] = bits[at : at + part.size]
        at += part.size
    return _find(new, old, by) if with_undo else None
