"""A rollback is a recovery with another head: what is trained on, and accounted for, after it."""

from __future__ import annotations

from collections import Counter

import pytest

from tailrace import topics
from tailrace.errors import UpdateRefused
from tailrace.updates import ModelUpdates
from tailrace.weights.lineage import label_only
from tailrace.weights.tensors import digest
from tests.trainer.conftest import Mill
from tests.trainer.lives import followed, run, trained
from tests.trainer.traffic import MODEL, sampled, trajectory


def test_skip_begins_the_branch_with_an_account_of_what_was_withdrawn(mill: Mill) -> None:
    trainer = trained(mill, 4)
    mill.put(trajectory(40, reward=None), trajectory(41))
    mill.roll_back(2)
    trainer = followed(mill, trainer)
    base = mill.versions()[2]
    assert trainer.head == base
    assert digest(trainer._policy.published()) == base.digest
    run(trainer)
    first = trainer.head
    assert (first.version, first.base_version, first.chunks) == (5, 2, None)
    assert label_only(first)
    mine = [r for r in mill.receipts() if r.version == 5]
    why = Counter((r.outcome, r.reason) for r in mine)
    assert why == {("filtered", "rolled_back"): 16, ("filtered", "no_reward"): 1}
    back = {r.subject_id for r in mine if r.reason == "rolled_back"}
    assert back == {r.subject_id for r in mill.receipts() if r.version in (3, 4)}
    report = mill.audit()
    assert report.ok, report.problems
    assert report.trajectories.outcomes == {"trained": 16, "filtered": 17}
    assert report.trajectories.in_flight == 1

    mill.put(*(sampled(n, 5) for n in range(50, 58)), sampled(60, 4), trajectory(30))
    run(trainer)
    assert (trainer.head.version, trainer.head.base_version) == (6, 5)
    outcomes = {r.subject_id: (r.outcome, r.reason) for r in mill.receipts() if r.version == 6}
    assert outcomes[sampled(60, 4).trajectory_id] == ("stale", "branch")
    assert outcomes[trajectory(30).trajectory_id] == ("duplicate", "trajectory_id")
    assert mill.audit().ok
    with ModelUpdates(mill.log, MODEL) as updates:
        assert updates.at(6).version == 6
        assert digest(trainer._policy.published()) == digest(updates.at(6).tensors)


def test_retrain_decides_the_same_records_again(mill: Mill) -> None:
    trainer = trained(mill, 2)
    mill.put(*(sampled(n, 2) for n in range(16, 24)))
    run(trainer)
    before = mill.versions()
    mill.roll_back(1, "retrain")
    trainer = followed(mill, trainer)
    run(trainer)
    found = mill.versions()
    assert [(u.version, u.base_version) for u in found[4:]] == [(4, 1), (5, 4)]
    assert all(not label_only(u) for u in found[4:])
    taken = {u.version: set[str]() for u in found}
    for step in mill.steps():
        taken[step.version] |= {i.trajectory_id for i in step.inputs}
    assert taken[4] | taken[5] == taken[2] | taken[3], "answers of withdrawn version 2 included"
    assert before[1].ranges[0].end == found[4].ranges[0].start
    report = mill.audit()
    assert report.ok, report.problems
    assert report.trajectories.outcomes == {"trained": 24}
    assert mill.audit(head=3).ok, "the history that was left adds up as well"


def test_an_answer_of_a_withdrawn_version_is_as_old_as_the_way_back_is_long(mill: Mill) -> None:
    trainer = trained(mill, 3)
    mill.roll_back(1, "retrain")
    trainer = followed(mill, trainer, max_age_versions=1)
    mill.put(sampled(90, 3), sampled(91, 2), sampled(92, 1))
    run(trainer)
    mill.drain()
    run(trainer)
    outcomes = {r.subject_id: r.outcome for r in mill.receipts() if (r.version or 0) > 3}
    assert outcomes[sampled(90, 3).trajectory_id] == "stale"
    assert outcomes[sampled(91, 2).trajectory_id] == "trained"
    assert mill.audit().ok


def test_a_version_that_was_under_way_is_withdrawn_too(mill: Mill) -> None:
    trainer = trained(mill, 3)
    mill.release(live=1, withdrawn_to=2, data="skip")  # its writer had not seen version 3
    trainer = followed(mill, trainer)
    run(trainer)
    assert (trainer.head.version, trainer.head.base_version) == (4, 1)
    assert sum(r.reason == "rolled_back" for r in mill.receipts()) == 16
    assert mill.audit().ok


@pytest.mark.parametrize("end", ["turn", "stop"])
def test_what_was_not_published_when_the_order_came_is_decided_on_the_branch(
    mill: Mill, end: str
) -> None:
    mill.lose(trained(mill, 1))
    mill.put(*(sampled(n, 1) for n in range(8, 16)))

    def order(point: str) -> None:
        if point == "stepped":
            mill.roll_back(0)

    trainer = mill.trainer(crash=order, publish_steps=1 if end == "turn" else 2)
    assert trainer.turn(0.0)
    if end == "stop":
        trainer.stop()
    assert trainer.withdrawn and [u.version for u in mill.versions()] == [0, 1]
    mill.forget(trainer)
    trainer.close()
    trainer = mill.trainer(max_age_versions=100)
    run(trainer)
    report = mill.audit()
    assert report.ok, report.problems
    assert report.trajectories.outcomes == {"filtered": 8, "stale": 8}
    back = {r.subject_id for r in mill.receipts() if r.reason == "rolled_back"}
    assert back == {trajectory(n).trajectory_id for n in range(8)}


def test_a_pin_is_no_rollback_and_hides_none(mill: Mill) -> None:
    trainer = trained(mill, 2)
    mill.release(mode="pin", live=0)
    mill.put(*(sampled(n, 2) for n in range(16, 24)))
    run(trainer)
    assert not trainer.withdrawn and trainer.head.version == 3
    mill.roll_back(1)
    mill.release(mode="pin", live=3)
    trainer = followed(mill, trainer)
    assert trainer.head.version == 1
    run(trainer)
    mill.release(live=1, withdrawn_to=3, data="skip")  # follow: as it was before the pin
    trainer.turn(0.0)
    assert not trainer.withdrawn and trainer.head.base_version == 1
    assert mill.audit().ok


def test_a_frozen_trainer_goes_back_and_trains_nothing(mill: Mill) -> None:
    trainer = trained(mill, 2)
    mill.order("freeze")
    mill.put(*(sampled(n, 1) for n in range(30, 38)))
    mill.roll_back(1, "retrain")
    trainer = followed(mill, trainer)
    steps = len(mill.steps())
    run(trainer)
    assert trainer.head.version == 1 and len(mill.steps()) == steps
    mill.order("thaw")
    run(trainer)
    assert trainer.head.base_version == 3 and len(mill.steps()) == steps + 2
    assert mill.audit().ok


def test_the_last_order_says_what_becomes_of_the_data(mill: Mill) -> None:
    trainer = trained(mill, 2)
    mill.order("freeze")
    mill.roll_back(1, "retrain")
    trainer = followed(mill, trainer)
    mill.roll_back(1, "skip")
    trainer = followed(mill, trainer)
    mill.order("thaw")
    run(trainer)
    report = mill.audit()
    assert report.ok, report.problems
    assert report.trajectories.outcomes == {"trained": 8, "filtered": 8}


def test_a_second_rollback_to_the_same_version_withdraws_the_branch(mill: Mill) -> None:
    trainer = trained(mill, 2)
    mill.roll_back(1)
    trainer = followed(mill, trainer)
    run(trainer)
    mill.put(*(sampled(n, 3) for n in range(30, 38)))
    run(trainer)
    assert trainer.head.version == 4
    mill.roll_back(1)
    trainer = followed(mill, trainer)
    run(trainer)
    assert (trainer.head.version, trainer.head.base_version) == (5, 1)
    report = mill.audit()
    assert report.ok, report.problems
    assert report.trajectories.outcomes == {"trained": 8, "filtered": 16}
    mill.roll_back(4)  # it was not that bad
    trainer = followed(mill, trainer)
    assert trainer.head.version == 4
    mill.put(*(sampled(n, 4) for n in range(40, 48)))
    run(trainer)
    run(trainer)
    report = mill.audit()
    assert report.ok, report.problems
    assert report.trajectories.outcomes == {"trained": 24, "filtered": 8}


def test_a_rollback_while_nobody_ran(mill: Mill) -> None:
    trainer = trained(mill, 3)
    trainer.stop()
    mill.forget(trainer)
    trainer.close()
    mill.roll_back(1)
    trainer = mill.trainer()
    assert trainer.head.version == 1 and trainer.recovery.reseeded is None
    assert trainer.recovery.replayed == 1, "the checkpoint is of a version that was withdrawn"
    run(trainer)
    assert mill.audit().ok


def test_from_a_version_that_is_not_there_nobody_goes_on(mill: Mill) -> None:
    trainer = trained(mill, 2)
    mill.release(live=77)
    mill.put(*(sampled(n, 2) for n in range(30, 38)))
    assert not trainer.turn(0.0) and trainer.withdrawn
    assert len(mill.versions()) == 3
    mill.lose(trainer)
    with pytest.raises(UpdateRefused, match="version 77 is not there"):
        mill.trainer()
    mill.roll_back(2)
    trainer = mill.trainer()
    run(trainer)
    assert (trainer.head.version, trainer.head.base_version) == (3, 2)
    assert mill.audit().ok


def test_without_a_way_back_through_the_ledger_it_goes_on_from_the_published_weights(
    mill: Mill,
) -> None:
    trainer = trained(mill, 3)
    mill.roll_back(2)
    trainer = followed(mill, trainer, replay_steps=0)
    assert "more than replay_steps" in (trainer.recovery.reseeded or "")
    assert digest(trainer._policy.published()) == mill.versions()[2].digest
    run(trainer)
    mill.put(*(sampled(n, 4) for n in range(30, 38)))
    run(trainer)
    assert [step.reseeded for step in mill.steps()] == [False, False, False, True]
    assert mill.steps()[3].figures["optimizer_reset"] == 1.0, "there was no checkpoint at all"
    assert mill.audit().ok


def test_where_nobody_could_build_the_base_the_branch_begins_with_a_keyframe(mill: Mill) -> None:
    trainer = trained(mill, 3)
    offsets = mill.versions()[0].chunks
    assert offsets is not None
    mill.log.delete_before(topics.MODEL_CHUNKS.name, {0: max(offsets.offsets) + 1})
    mill.roll_back(1)
    trainer = followed(mill, trainer)
    run(trainer)
    assert (trainer.head.version, trainer.head.kind, trainer.head.keyframe_version) == (
        *(4, "keyframe", 4),
    )
    assert label_only(trainer.head)
    with ModelUpdates(mill.log, MODEL) as updates:
        assert updates.at(4).manifest == trainer.head
