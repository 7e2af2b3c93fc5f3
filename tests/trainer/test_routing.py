"""What the intake decides is what is trained, written down, and replayed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tailrace import ids
from tailrace.events import Trajectory, TrajectoryContent
from tailrace.log.memory import MemoryLog
from tests.trainer.conftest import Mill
from tests.trainer.lives import run
from tests.trainer.traffic import trajectory

ALL: dict[str, Any] = {"old_objective": "kto", "fresh_versions": 0, "corrected_versions": 1}


def traffic() -> list[list[Trajectory]]:
    """Two batches of every kind: the second revises the first, and is of its version."""
    first = [trajectory(n, reward=1.0, group_id="g", group_size=1) for n in range(4)]
    first += [trajectory(n) for n in range(4, 8)]
    second = [
        trajectory(n, trajectory_id=f"r{n}", supersedes=trajectory(n).trajectory_id, reward=-1.0)
        for n in range(2)
    ]
    asked = trajectory(20)
    assert asked.content is not None
    below = [ids.answer(asked.interaction_id, 1)]
    second += [
        trajectory(20, trajectory_id="w", preferred_over=below, reward=1.0),
        trajectory(20, trajectory_id="l", choice=1, reward=-1.0),
    ]
    edit = TrajectoryContent(
        prompt_token_ids=asked.content.prompt_token_ids, demonstration="The river runs."
    )
    second += [trajectory(21, content=edit, reward=None)]
    second += [trajectory(n) for n in range(30, 33)]
    return [first, second]


def lived(mill: Mill, *, kills: bool, **changes: Any) -> list[Any]:
    changes |= ALL
    trainer = mill.trainer(**changes)
    for batch in traffic():
        mill.put(*batch)
        run(trainer)
        mill.drain()
        run(trainer)
        if kills:
            mill.lose(trainer)
            trainer = mill.trainer(**changes)
            assert trainer.recovery.reseeded is None
    report = mill.audit()
    assert report.ok, report.problems
    assert report.trajectories.outcomes == {"compensated": 2, "trained": 14}
    return [(u.version, u.digest) for u in mill.versions()]


@pytest.mark.parametrize("baseline", ["slice", "regression"])
def test_every_kind_is_trained_by_its_objective_and_a_restart_trains_the_same(
    mill: Mill, tiny_model: Path, tmp_path: Path, baseline: str
) -> None:
    whole = lived(mill, kills=False, baseline=baseline)
    said = {i.trajectory_id: i for step in mill.steps() for i in step.inputs}
    kinds = {i.objective for i in said.values()}
    assert kinds == {"cispo", "tis", "dpo", "sft"}
    assert (said["r0"].reward, said["r0"].before, said["r0"].age_versions) == (-1.0, 1.0, 1)
    assert {said["w"].objective, said["l"].objective} == {"dpo"}
    assert said[trajectory(21).trajectory_id].objective == "sft"
    other = Mill(MemoryLog(mill.clock.wall_ms), tiny_model, tmp_path / "o", clock=mill.clock)
    try:
        assert lived(other, kills=True, baseline=baseline) == whole
    finally:
        other.close()


def test_a_drain_leaves_nothing_of_groups_that_never_became_whole(mill: Mill) -> None:
    waiting = [trajectory(n, group_id=f"g{n}", group_size=4) for n in range(20)]
    mill.put(*waiting)
    trainer = mill.trainer(batch_wait_s=1e6, account_s=1e6)
    assert not trainer.turn()
    mill.drain()
    run(trainer)
    assert [receipt.outcome for receipt in mill.receipts()] == ["trained"] * 20
    report = mill.audit()
    assert report.ok and report.trajectories.in_flight == 0
