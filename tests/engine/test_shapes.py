"""Dense Hugging Face models in general: what vLLM computes after a swap is what transformers says.

Each family in its shape (biases, norms of queries and keys, heads tied to the embedding or not),
with weights that have nothing in common with those it was started from.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from itertools import product
from pathlib import Path

import pytest

from tailrace.weights import folder
from tailrace.weights.tensors import Tensors
from tests.engine.real import (
    SHAPES,
    TOKENS,
    Reference,
    core,
    distance,
    noisy,
    starting_vllm,
    write_shape,
)

BY_DEFAULT = (("qwen2", False), ("gemma3", True))
OTHERS = [
    case
    for case in product(SHAPES, (True, False))
    if case not in BY_DEFAULT and case != ("gemma2", False)  # vLLM has none
]
PAIRS = [
    BY_DEFAULT,
    *(pytest.param(OTHERS[at : at + 2], marks=pytest.mark.soak) for at in range(0, len(OTHERS), 2)),
]
TOLERANCE = 0.1
"""Nats per token: vLLM computes in bfloat16, the reference in float32."""


class Shape:
    """Two models of one shape, and a vLLM that starts with the first."""

    def __init__(self, name: str, tied: bool, where: Path, vllms: ExitStack, number: int) -> None:
        self.name = f"{name} tied={tied}"
        model = write_shape(where / "v0", name, tied=tied)
        self.base = dict(folder.read(model))
        self.other = dict(folder.read(write_shape(where / "v1", name, tied=tied, seed=1)))
        self.reference = Reference(model)
        self.vllm = vllms.enter_context(starting_vllm(model, where, cores=core(number)))
        self.worst = 0.0

    def found(self, tensors: Tensors, version: int) -> list[float]:
        """What vLLM says after a swap, which is what transformers says."""
        logprobs = self.vllm.load(version, tensors)
        self.worst = max(self.worst, distance(logprobs, self.reference.logprobs(tensors, TOKENS)))
        assert self.worst < TOLERANCE, self.name
        return logprobs


@pytest.mark.e2e
@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_a_swap_gives_what_transformers_computes(
    pair: Sequence[tuple[str, bool]], tmp_path: Path
) -> None:
    with ExitStack() as vllms:
        shapes = [
            Shape(name, tied, tmp_path / name / str(tied), vllms, number)
            for number, (name, tied) in enumerate(pair)
        ]
        for shape in shapes:
            base = shape.base
            shape.vllm.wait()
            was = shape.found(base, 1)
            assert distance(shape.found(shape.other, 2), was) > 1.0
            # One tensor alone: each arrives, under the name that it has in the folder.
            least = float("inf")
            for version, name in enumerate(sorted(base), 3):
                now = shape.found(base | {name: noisy(base[name], 2.0)}, version)
                least = min(least, distance(now, was))
            assert least > 0.03
            assert shape.found(base, 99) == was
            print(f"shape={shape.name} worst={shape.worst:.4f} least={least:.4f}")
