"""The three loops of the codec, for numba: one pass over the weights, a counter per class, no sort.

Plain functions over arrays; :func:`compiled` gives them as machine code that holds no lock, built
at first use and kept on disk where that can be written. :mod:`tailrace.weights.changes` calls them
where numba is installed (extra ``tailrace[weights]``) and does the same with numpy where not.

A *place* is ``class << 24 | gap`` in 32 bits, the gap being the weights of that class that are
passed over since its last changed one: a frame has at most 2**24 weights.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
import logging
from typing import Any, NamedTuple

_log = logging.getLogger(__name__)

GAP_BITS = 24
GAP_MASK = (1 << GAP_BITS) - 1
NEVER = 1 << 40
"""A gap that no frame reaches the end of."""


class Kernels(NamedTuple):
    """The loops, compiled."""

    scan: Callable[..., tuple[int, int]]
    group: Callable[..., None]
    put: Callable[..., int]


@cache
def compiled() -> Kernels | None:
    """The loops as machine code; None without numba."""
    try:
        import numba
    except ImportError as error:
        _log.info("codec=numpy reason=%r", str(error))
        return None

    def build(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            return numba.njit(function, nogil=True, cache=True)  # type: ignore[no-any-return]
        except RuntimeError:  # no folder where the cache could be written
            return numba.njit(function, nogil=True)  # type: ignore[no-any-return]

    return Kernels(build(scan), build(group), build(put))


def scan(
    old: Any,
    new: Any,
    start: int,
    shift: int,
    mask: int,
    passed: Any,
    places: Any,
    steps: Any,
    filled: int,
) -> tuple[int, int]:
    """List the changes of ``old[start:]`` behind the first ``filled`` of ``places`` and ``steps``.

    ``passed`` counts the weights of each class since its last change, over all parts of a frame.
    Returns how far it came in ``old`` (its end, or where the list is full) and in the list.
    """
    room = places.size
    for i in range(start, old.size):
        before = old[i]
        number = (before >> shift) & mask
        if before == new[i]:
            passed[number] += 1
        else:
            if filled == room:
                return i, filled
            places[filled] = (number << GAP_BITS) | passed[number]
            passed[number] = 0
            steps[filled] = new[i] - before
            filled += 1
    return old.size, filled


def group(places: Any, steps: Any, ends: Any, gaps: Any, grouped: Any) -> None:
    """Order a list of changes by class: ``gaps`` and ``grouped`` (steps), each class in the order
    of the list. ``ends`` says where in them each class begins, and afterwards where it ends."""
    for k in range(places.size):
        number = places[k] >> GAP_BITS
        at = ends[number]
        ends[number] = at + 1
        gaps[at] = places[k] & GAP_MASK
        grouped[at] = steps[k]


def put(
    old: Any,
    new: Any,
    shift: int,
    mask: int,
    gaps: Any,
    steps: Any,
    state: Any,
    places: Any,
    back: Any,
    filled: int,
) -> int:
    """Write ``old`` with its changes to ``new``; list what undoes them in ``places`` and ``back``.

    ``state`` is seven rows of a number per class, kept over all parts of a frame:

    0. weights to pass before the next change; 1. the same at its start; 2. the next change's index
       in ``gaps`` and ``steps``; 3. where the class ends there; 4. rank of its last change;
    5. weights that came into the class less those that left it; 6. rank in the new weights of its
       last undo.

    Empty ``places`` ask for no undo. Returns how far it came in the list.
    """
    left = state[0]
    for i in range(old.size):
        before = old[i]
        number = (before >> shift) & mask
        if left[number] != 0:
            left[number] -= 1
            new[i] = before
            continue
        k = state[2, number]
        new[i] = before + steps[k]  # wraps as it is stored
        after = new[i]
        rank = state[4, number] + state[1, number] + 1
        state[4, number] = rank
        k += 1
        state[2, number] = k
        gap = NEVER
        if k < state[3, number]:
            gap = gaps[k]
        state[0, number] = gap
        state[1, number] = gap
        if places.size:
            into = (after >> shift) & mask
            if into == number:
                rank += state[5, into]
            else:
                # Weights of that class so far in the base, and those that moved.
                rank = state[4, into] + 1 + state[1, into] - state[0, into] + state[5, into]
                state[5, into] += 1
                state[5, number] -= 1
            places[filled] = (into << GAP_BITS) | (rank - state[6, into] - 1)
            state[6, into] = rank
            back[filled] = before - after
            filled += 1
    return filled
