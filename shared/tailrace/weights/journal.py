"""The undo journal: the way back from the weights that are held, without a download.

A delta cannot be run backwards (a changed weight may leave its class), but applying it yields the
delta that undoes it. The store pushes that here and steps back with it. A journal is a value: what
was true of it stays true, so a store that goes back to what it had before a failed swap has the
journal of that moment too. It is bounded in bytes; the oldest undos go first.

An undo goes through the whole model, so a long way back takes its time:
:meth:`tailrace.weights.lineage.Lineage.paths` weighs it against a keyframe.

A journal promises nothing about weights: the store compares digests of what it makes of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from tailrace.weights import codec
from tailrace.weights.lineage import State
from tailrace.weights.tensors import Tensor, Tensors


class Undo(NamedTuple):
    """One step back."""

    stream: bytes
    """The delta onto the weights that came after, see :mod:`tailrace.weights.codec`."""
    digest: str
    """Of the weights that it makes."""
    files: Mapping[str, bytes]
    """Config and tokenizer files beside those weights."""
    config: str | None = None
    """Their digest; None: none were asked for."""


class Journal(msgspec.Struct, frozen=True, eq=False):
    """The undos of the last updates, newest first, in at most ``limit_bytes`` of streams."""

    limit_bytes: int = 0
    undos: tuple[Undo, ...] = ()

    @property
    def states(self) -> tuple[State, ...]:
        """What is 1, 2, ... steps back."""
        return tuple(State(undo.digest, undo.config) for undo in self.undos)

    def after(self, undo: Undo) -> Journal:
        """With one more step; without the oldest, where there is no room."""
        kept: list[Undo] = []
        left_bytes = self.limit_bytes
        for each in (undo, *self.undos):
            left_bytes -= len(each.stream)
            if left_bytes < 0:
                break
            kept.append(each)
        return Journal(self.limit_bytes, tuple(kept))

    def before(self, steps: int) -> Journal:
        """What is left of it ``steps`` back."""
        return Journal(self.limit_bytes, self.undos[steps:])

    def undo(self, tensors: Mapping[str, Tensor], steps: int) -> Tensors:
        """The weights ``steps`` back. Raises UpdateRefused when an undo does not fit."""
        found = dict(tensors)
        for each in self.undos[:steps]:
            found = codec.apply_delta(each.stream, found).tensors
        return found
