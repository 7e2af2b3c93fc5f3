"""An engine that rollouts sample, and where it listens."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.gateway.fakevllm import Served
from tests.rollouts.fakeengine import FakeEngine


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def url(engine: FakeEngine) -> Iterator[str]:
    served = Served(engine.app)
    yield served.url
    served.stop()
