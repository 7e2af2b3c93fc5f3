"""Dense Hugging Face models in general: what vLLM computes after a swap is what transformers says.

Each family in its shape (biases, norms of queries and keys, heads tied to the embedding or not),
with weights that have nothing in common with those it was started from.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tailrace.weights import folder
from tailrace.weights.tensors import Tensors
from tests.engine.real import (
    SHAPES,
    TOKENS,
    Reference,
    distance,
    noisy,
    real_vllm,
    write_shape,
)

BY_DEFAULT = {("qwen2", False), ("gemma3", True)}
CASES = [
    pytest.param(shape, tied, marks=[] if (shape, tied) in BY_DEFAULT else pytest.mark.soak)
    for shape in SHAPES
    for tied in (True, False)
    if (shape, tied) != ("gemma2", False)  # vLLM has none
]
TOLERANCE = 0.1
"""Nats per token: vLLM computes in bfloat16, the reference in float32."""


@pytest.mark.e2e
@pytest.mark.parametrize(("shape", "tied"), CASES)
def test_a_swap_gives_what_transformers_computes(shape: str, tied: bool, tmp_path: Path) -> None:
    model = write_shape(tmp_path / "v0", shape, tied=tied)
    base = dict(folder.read(model))
    other = dict(folder.read(write_shape(tmp_path / "v1", shape, tied=tied, seed=1)))
    reference = Reference(model)
    worst = 0.0
    with real_vllm(model, tmp_path) as vllm:

        def found(tensors: Tensors, version: int) -> list[float]:
            nonlocal worst
            logprobs = vllm.load(version, tensors)
            worst = max(worst, distance(logprobs, reference.logprobs(tensors, TOKENS)))
            assert worst < TOLERANCE
            return logprobs

        was = found(base, 1)
        assert distance(found(other, 2), was) > 1.0
        # One tensor alone: each arrives, under the name that it has in the folder.
        least = float("inf")
        for version, name in enumerate(sorted(base), 3):
            now = found(base | {name: noisy(base[name], 2.0)}, version)
            least = min(least, distance(now, was))
        assert least > 0.03
        assert found(base, 99) == was
    print(f"shape={shape} tied={tied} worst={worst:.4f} least={least:.4f}")
