"""One real vLLM with a tiny model for all tests of this folder that need no other.

Every test begins by swapping in what it needs.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.engine.real import Models, RealVllm, real_vllm


@pytest.fixture(scope="package")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="package")
def vllm(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealVllm]:
    where = tmp_path_factory.mktemp("vllm")
    with real_vllm(models.folder, where, max_model_len=2048) as running:
        yield running
