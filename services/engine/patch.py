"""What changed between two versions, for a vLLM that can write it in place.

In: the tensors of two versions. Out: tensors for a file beside the newer one, read by
:mod:`tailrace.plugins.patches`: for each tensor that changed ``positions/NAME`` (int32, flat), and
``before/NAME`` and ``after/NAME``, the bits there as integers of the same width. Called by
:mod:`services.engine.slot`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tailrace.weights.tensors import ITEM_BYTES, Tensor, Tensors

MOST = 1 / 16
"""Of a model's weights. A change takes eight bytes, so a patch is a quarter of the model then."""

_INTEGERS = {1: "uint8", 2: "int16", 4: "int32", 8: "int64"}


def patch(old: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> Tensors | None:
    """What makes ``new`` of ``old``; None where all has to be loaded anyway: tensors came, went or
    took another shape, or too much changed."""
    if old.keys() != new.keys():
        return None
    found: Tensors = {}
    room = MOST * sum(tensor.bits.nbytes // ITEM_BYTES[tensor.dtype] for tensor in new.values())
    for name, after in new.items():
        before = old[name]
        if before is after:
            continue
        if (before.dtype, before.shape) != (after.dtype, after.shape):
            return None
        item_bytes = ITEM_BYTES[after.dtype]
        was, now = (tensor.bits.view(f"<u{item_bytes}") for tensor in (before, after))
        if now.size > 1 << 31:
            return None
        places = np.flatnonzero(was != now)
        room -= places.size
        if room < 0:
            return None
        if places.size:
            shape = (places.size,)
            kind = _INTEGERS[item_bytes]
            found[f"positions/{name}"] = Tensor.of("int32", shape, places.astype("<i4"))
            found[f"before/{name}"] = Tensor.of(kind, shape, was[places])
            found[f"after/{name}"] = Tensor.of(kind, shape, now[places])
    return found
