"""Time is the log's: what the worker's own clock says changes nothing."""

from __future__ import annotations

import pytest

from tests.faults.machine import Machine

pytestmark = pytest.mark.kafka


def test_the_wall_clock_jumps(machine: Machine) -> None:
    """Event times of the traffic are anything between 1970 and 2030 besides."""
    worker = machine.start("a", "tests.faults.jumping")
    for number in range(6):
        machine.traffic.some(10)
        machine.await_joined(2 * (number + 1))
    machine.end()
    assert machine.deaths == []
    assert worker.stop() == 0
