"""A collector for each test that asks for one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.traces.receiver import Receiver, receiving


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made
