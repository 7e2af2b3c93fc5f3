"""All that the workers knew is lost, the inputs are kept: a rebuild, not a loss."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.faults.machine import Machine
from tests.rewards.worker import CHECKOUT

pytestmark = pytest.mark.kafka


def rebuild(machine: Machine) -> subprocess.CompletedProcess[str]:
    settings = str(machine.folder / "a" / "settings.toml")
    command = [sys.executable, "-m", "services.rewards.rebuild", "--settings", settings]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=60)


def test_the_state_is_lost_and_made_again(machine: Machine) -> None:
    worker = machine.start("a", instance=False)
    machine.traffic.some(60)
    machine.await_joined(10)
    refused = rebuild(machine)
    assert refused.returncode == 1 and "not empty" in refused.stderr
    assert worker.stop() == 0
    done = rebuild(machine)
    assert done.returncode == 0, done.stderr
    before = sum(machine.bench.log.ends(machine.prefix + "receipts").values())
    worker.start()
    machine.traffic.some(20)
    machine.end()
    receipts = sum(machine.bench.log.ends(machine.prefix + "receipts").values())
    assert receipts >= 2 * before  # said again, and the same
