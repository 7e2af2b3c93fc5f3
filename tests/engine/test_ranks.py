"""Tensor parallel: each rank loads its shard of the one file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tailrace.weights import folder
from tests.engine.real import TOKENS, Reference, distance, real_vllm, write_shape


@pytest.mark.soak
@pytest.mark.e2e
def test_two_ranks_compute_with_what_was_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "0|1")
    model = write_shape(tmp_path / "v0", "qwen2", tied=False)
    other = dict(folder.read(write_shape(tmp_path / "v1", "qwen2", tied=False, seed=1)))
    base, reference = dict(folder.read(model)), Reference(model)
    arguments = ("--tensor-parallel-size", "2")
    with real_vllm(model, tmp_path, cores=None, vllm_arguments=arguments) as vllm:
        for version, tensors in enumerate((base, other, base)):
            found = vllm.load(version, tensors)
            assert distance(found, reference.logprobs(tensors, TOKENS)) < 0.1
