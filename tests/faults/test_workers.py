"""Reward workers killed, lost, joining and leaving: the account of the fault-free run each time."""

from __future__ import annotations

from pathlib import Path
import random
from typing import Any

import pytest

from tests.faults.machine import Machine

pytestmark = pytest.mark.kafka


@pytest.mark.parametrize("step", ["revoked", "assigned"])
def test_a_worker_is_killed_in_a_rebalance(machine: Machine, step: str) -> None:
    """``revoked``: the first, when another one joins. ``assigned``: the one that joins."""
    (machine.folder / "a").mkdir()
    (machine.folder / "b").mkdir()
    victim = {"revoked": "a", "assigned": "b"}[step]
    (machine.folder / victim / "step").write_text(step)
    program = {victim: ("tests.rewards.killed",)}
    machine.start("a", *program.get("a", ()))
    machine.traffic.some(30)
    machine.await_joined(5)
    machine.start("b", *program.get("b", ()))
    machine.traffic.some(30)
    worker = machine.workers[victim]
    machine.bench.await_true(lambda: worker.ended() is not None, worker)
    machine.heal()
    machine.traffic.some(30)
    machine.end()
    assert machine.deaths == [-9]


@pytest.mark.parametrize("lost", ["lose changelog", "lose outputs"])
def test_one_of_changelog_and_outputs_is_lost(machine: Machine, lost: str) -> None:
    (machine.folder / "a").mkdir()
    (machine.folder / "a" / "step").write_text(lost)
    worker = machine.start("a", "tests.rewards.killed")
    machine.traffic.some(40)
    machine.bench.await_true(lambda: worker.ended() is not None, worker)
    machine.heal()
    machine.traffic.some(20)
    machine.end()
    assert machine.deaths == [-9]


def test_two_workers_join_and_leave_by_turns(machine: Machine) -> None:
    machine.start("a", instance=False)
    for leaving, joining in (("a", "b"), ("b", "c")):
        machine.start(joining, instance=False)
        machine.traffic.some(20)
        machine.await_log(joining, "assigned")
        machine.retire(leaving)
        machine.traffic.some(20)
    machine.end()
    assert machine.deaths == []


def test_everything_twice(broker: Any, prefix: str, tmp_path: Path) -> None:
    machine = Machine(broker.bootstrap, prefix, tmp_path, times=2)
    try:
        machine.start("a")
        machine.traffic.some(60)
        account = machine.end()
        outcomes = [outcome for said in machine.bench.outcomes().values() for outcome in said]
        assert outcomes.count("duplicate") >= account.feedback // 4
    finally:
        machine.close()


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(20))
def test_killed_at_any_time(broker: Any, prefix: str, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    machine = Machine(broker.bootstrap, prefix, tmp_path, seed=seed)
    try:
        for name in ("a", "b"):
            machine.start(name)
        for _ in range(6):
            machine.traffic.some(chance.randint(1, 60))
            machine.workers[chance.choice("ab")].kill()
            machine.heal()
        machine.end()
    finally:
        machine.close()
