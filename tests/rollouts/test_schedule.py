"""Which task comes when, and whose ids its group has."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.rollouts.schedule import Schedule
from tailrace.errors import SettingsError
from tailrace.tasks import benchmark
from tests.rollouts.scene import a_benchmark, line, write


def test_every_task_comes_once_before_any_comes_again(tmp_path: Path) -> None:
    both = [a_benchmark(tmp_path / "a", 5), a_benchmark(tmp_path / "b", 2)]
    schedule = Schedule(both, seed=1)

    def names(turn: int) -> list[str]:
        items = [schedule.item(turn * 7 + at) for at in range(7)]
        return [f"{item.benchmark.name}/{item.task.id}" for item in items]

    first, second = names(0), names(1)
    assert len({*first}) == 7 and {*first} == {*second} and first != second
    # By the number alone: another process, or this one asked in another order, says the same.
    assert names(0) == first
    assert Schedule(both, seed=1).item(9).task == schedule.item(9).task
    other = Schedule(both, seed=2)
    assert [other.item(n).task.id for n in range(7)] != [schedule.item(n).task.id for n in range(7)]


def test_what_is_held_out_is_never_sampled(tmp_path: Path) -> None:
    lines = [line(n, split="heldout" if n % 2 else "train") for n in range(6)]
    one = benchmark.load(write(tmp_path / "sums", lines))
    schedule = Schedule([one], seed=0)
    assert {schedule.item(n).task.id for n in range(30)} == {"t0", "t2", "t4"}
    heldout = benchmark.load(write(tmp_path / "none", [line(1, split="heldout")]))
    with pytest.raises(SettingsError, match="none has no task to train on"):
        Schedule([one, heldout], seed=0)
