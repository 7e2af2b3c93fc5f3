"""A machine on the test run's broker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.machine import Machine


@pytest.fixture
def machine(broker: Any, prefix: str, tmp_path: Path) -> Iterator[Machine]:
    made = Machine(broker.bootstrap, prefix, tmp_path)
    yield made
    made.close()
