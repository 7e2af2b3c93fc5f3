"""The join's property on Faust and the broker: drawn histories, drawn kills, one account.

The small sibling of tests/rewards/test_join_properties.py, where thousands are read without Kafka.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
import uuid

from hypothesis import Phase, given, settings
from hypothesis import strategies as st
import pytest

from tests.faults.machine import Machine

pytestmark = pytest.mark.kafka

acts = st.tuples(st.integers(1, 40), st.sampled_from("ab"))
"""So many acts of users, then the kill of a worker."""


def test_any_history_with_any_kills_gives_the_account_of_one_without(
    broker: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    @settings(max_examples=4, deadline=None, derandomize=True, phases=[Phase.generate])
    @given(seed=st.integers(0, 2**32), history=st.lists(acts, min_size=1, max_size=3))
    def same(seed: int, history: list[tuple[int, str]]) -> None:
        _live_through(broker, tmp_path_factory.mktemp("history"), seed, history)

    same()


def _live_through(broker: Any, folder: Path, seed: int, history: list[tuple[int, str]]) -> None:
    machine = Machine(broker.bootstrap, f"t{uuid.uuid4().hex[:10]}.", folder, seed=seed)
    try:
        for name in "ab":
            machine.start(name)
        for number, victim in history:
            machine.traffic.some(number)
            machine.workers[victim].kill()
            machine.heal()
        machine.end()
    finally:
        machine.close()
