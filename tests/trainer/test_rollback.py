"""A rollback is a recovery with another head: what is trained on, and accounted for, after it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from hypothesis import Phase, given, settings
from hypothesis import strategies as st
import msgspec
import pytest

from services.trainer.trainer import Trainer
from tailrace import topics
from tailrace.events import Trajectory
from tailrace.log.memory import MemoryLog
from tailrace.updates import ModelUpdates
from tailrace.weights.lineage import Lineage, label_only
from tailrace.weights.tensors import digest
from tests.trainer.conftest import Clock, Mill
from tests.trainer.test_recovery import Killed, run_until
from tests.trainer.traffic import MODEL, trajectory


def sampled(number: int, version: int) -> Trajectory:
    """An answer of one version."""
    made = trajectory(number)
    spans = [msgspec.structs.replace(span, version=version) for span in made.weight_versions]
    return msgspec.structs.replace(made, weight_versions=spans)


def run(trainer: Trainer) -> None:
    """Until there is nothing to do."""
    busy = True
    while busy:
        busy = trainer._skip_ends is not None
        busy |= trainer.turn(0.0)


def trained(mill: Mill, versions: int) -> Trainer:
    """A trainer that has just published so many versions of 8 answers each."""
    mill.put(*(trajectory(n) for n in range(8 * versions)))
    trainer = mill.trainer()
    run(trainer)
    assert trainer.head.version == versions
    return trainer


def followed(mill: Mill, trainer: Trainer, **changes: object) -> Trainer:
    """The next trainer, as ``__main__`` makes it."""
    trainer.turn(0.0)
    assert trainer.withdrawn
    mill.forget(trainer)
    trainer.close()
    return mill.trainer(**changes)


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


@pytest.fixture
def expected(mill: Mill, tiny_model: Path, tmp_path: Path) -> list[str | None]:
    """The digests of an undisturbed run of :func:`scene`."""
    other = Mill(MemoryLog(mill.clock.wall_ms), tiny_model, tmp_path / "o", clock=mill.clock)
    trainer = trained(other, 3)
    other.roll_back(1)
    other.put(*(sampled(n, 1) for n in range(30, 38)))
    run(followed(other, trainer))
    other.close()
    return [u.digest for u in other.versions()]


@pytest.mark.parametrize("point", ["encoded", "published", "taken", "stepped"])
def test_killed_while_it_forks_it_ends_in_the_same_state(
    mill: Mill, expected: list[str | None], point: str
) -> None:
    trainer = trained(mill, 3)
    mill.roll_back(1)
    mill.put(*(sampled(n, 1) for n in range(30, 38)))
    trainer.turn(0.0)
    mill.forget(trainer)
    trainer.close()
    for times in (1, 1):
        run_until(mill, point, times)
        if mill.versions()[-1].version == 5:
            break
    run(mill.trainer())
    assert [u.digest for u in mill.versions()] == expected
    report = mill.audit()
    assert report.ok, report.problems
    assert report.trajectories.outcomes == {"trained": 16, "filtered": 16}


def test_stopped_before_the_account_of_the_branch_is_whole_it_publishes_nothing(mill: Mill) -> None:
    trainer = trained(mill, 3)
    mill.roll_back(1)
    trainer = followed(mill, trainer)
    assert trainer._skip_ends is not None
    trainer.stop()
    assert len(mill.versions()) == 4
    mill.forget(trainer)
    trainer.close()
    run(mill.trainer())
    assert mill.audit().trajectories.outcomes == {"trained": 8, "filtered": 16}


class Round(msgspec.Struct, frozen=True):
    """Some answers, an order, and a trainer that turns until it has nothing to do, or dies."""

    answers: list[int]
    """By how many versions each is behind."""
    order: str | None
    version: int
    dies: str | None


rounds = st.builds(
    Round,
    st.lists(st.integers(0, 4), min_size=4, max_size=12),
    st.sampled_from([None, None, "skip", "retrain", "skip", "retrain", "pin"]),
    st.integers(0, 50),
    st.sampled_from([None, None, "taken", "encoded", "published"]),
)


@settings(max_examples=3, deadline=None, derandomize=True, phases=[Phase.generate])
@given(history=st.lists(rounds, min_size=5, max_size=7))
def test_any_history_of_rollbacks_and_kills_adds_up(
    tiny_model: Path, tmp_path_factory: pytest.TempPathFactory, history: list[Round]
) -> None:
    """Along the chain of every version each record has one outcome and each answer is trained at
    most once; what is trained on is what the releases leave."""
    clock = Clock()
    state = tmp_path_factory.mktemp("state")
    mill = Mill(MemoryLog(clock.wall_ms), tiny_model, state, clock=clock)
    trainer, number = mill.trainer(checkpoint_versions=2), 0
    for each in [*history, Round(answers=[], order=None, version=0, dies=None)]:
        newest = mill.versions()[-1].version
        for behind in each.answers:
            mill.put(sampled(number, max(0, newest - behind)))
            number += 1
        if each.order in ("skip", "retrain"):
            mill.roll_back(each.version % (newest + 1), each.order)
        elif each.order == "pin":
            mill.release(mode="pin", live=each.version % (newest + 1))

        def crash(at: str, dies: str | None = each.dies) -> None:
            if at == dies:
                raise Killed

        trainer._crash = trainer._press._crash = crash
        for _ in range(8):
            clock.now_s += 70  # what waits is trained, and decided
            try:
                trainer.turn(0.0)
            except Killed:
                mill.lose(trainer)
                trainer = mill.trainer(checkpoint_versions=2)
            if trainer.withdrawn:
                mill.forget(trainer)
                trainer.close()
                trainer = mill.trainer(crash=crash, checkpoint_versions=2)
    lineage = Lineage()
    for update in mill.versions():
        assert lineage.add(update)
    assert trainer.head == lineage.served(trainer._releases.followed)
    for version in lineage.updates:
        report = mill.audit(version)
        assert report.ok, (version, report.problems)
    mill.close()
