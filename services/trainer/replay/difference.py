"""How far two versions' weights are from each other. Pure, without torch."""

from __future__ import annotations

from collections.abc import Mapping
import statistics

import msgspec
import numpy as np

from tailrace.events import Canary
from tailrace.packing import unpack_logprobs
from tailrace.weights.tensors import Tensor


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """From one version's weights to another's."""

    changed_weights: float
    """Share of weights that are not the same."""
    mean_abs_change: float
    """Over all weights."""
    max_relative_change: float
    """Largest change of a weight by its own size; weights that were 0 aside."""


def difference(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> Difference:
    """Tensors of the same names and shapes, in a dtype that float32 holds.

    >>> one = Tensor.of("bfloat16", (2,), np.array([0x3F80, 0x4000], "<u2"))  # 1.0, 2.0
    >>> two = Tensor.of("bfloat16", (2,), np.array([0x3F80, 0x4040], "<u2"))  # 1.0, 3.0
    >>> found = difference({"w": one}, {"w": two})
    >>> found.changed_weights, found.mean_abs_change, found.max_relative_change
    (0.5, 0.5, 0.5)
    """
    weights = changed = 0
    total = largest = 0.0
    for name, old in before.items():
        new = after[name]
        weights += old.bits.size
        differs = old.bits != new.bits
        count = int(differs.sum())
        if not count:
            continue
        changed += count
        flat = old.float32().reshape(-1)[differs].astype(np.float64)
        step = np.abs(new.float32().reshape(-1)[differs] - flat)
        total += float(step.sum())
        sized = flat != 0.0
        if sized.any():
            largest = max(largest, float((step[sized] / np.abs(flat[sized])).max()))
    return Difference(
        changed_weights=changed / max(1, weights),
        mean_abs_change=total / max(1, weights),
        max_relative_change=largest,
    )


def canary_change(before: Canary | None, after: Canary | None) -> tuple[float, float] | None:
    """(mean, largest) absolute change of the log-probability of a token of the fixed line, nats.
    None: the two are not of the same line."""
    if before is None or after is None or before.logprobs is None or after.logprobs is None:
        return None
    lines = [(c.prompt_tokens, c.output_tokens) for c in (before, after)]
    if lines[0] != lines[1]:
        return None
    pairs = zip(unpack_logprobs(before.logprobs), unpack_logprobs(after.logprobs), strict=True)
    changes = [abs(new - old) for old, new in pairs]
    return (statistics.fmean(changes), max(changes)) if changes else None
