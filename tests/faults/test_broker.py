"""The broker killed under load: workers come back by themselves or by their supervisor."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import TestBroker
from tests.faults.machine import Machine

pytestmark = pytest.mark.kafka


def test_the_broker_is_killed_under_load(own_broker: TestBroker, tmp_path: Path) -> None:
    machine = Machine(own_broker.bootstrap, "", tmp_path)
    try:
        for name in ("a", "b"):
            machine.start(name)
        machine.traffic.some(40)
        machine.await_joined(5)
        machine.traffic.some(40, flush=False)
        own_broker.kill()
        machine.traffic.some(40, flush=False)
        own_broker.start()
        own_broker.wait_ready()
        machine.heal()
        machine.traffic.some(40)
        machine.end(100.0)
    finally:
        machine.close()
