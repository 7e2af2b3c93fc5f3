"""Rooms with a fake vLLM, and one real vLLM with a tiny model for all tests that need no other.

Every test with the real one begins by swapping in what it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.engine.real import Models, RealVllm, real_vllm
from tests.engine.room import Room


@pytest.fixture(scope="package")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="package")
def vllm(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealVllm]:
    where = tmp_path_factory.mktemp("vllm")
    with real_vllm(models.folder, where, max_model_len=2048) as running:
        yield running


@pytest.fixture
def rooms(tmp_path: Path) -> Iterator[Callable[..., Room]]:
    """Makes rooms."""
    made: list[Room] = []

    def make(**more: object) -> Room:
        made.append(Room(tmp_path, **more))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for room in made:
        room.close()


@pytest.fixture
def room(rooms: Callable[..., Room]) -> Room:
    """One that supervises its vLLM, on an empty log."""
    return rooms()
