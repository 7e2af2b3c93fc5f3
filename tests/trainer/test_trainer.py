"""The loop on the in-memory log: versions, receipts and ledger add up."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import Future
from pathlib import Path

import pytest

from tailrace import topics
from tailrace.errors import Fenced, LogError, SettingsError
from tailrace.log.base import Position
from tailrace.packing import unpack_logprobs
from tailrace.partition import partition_of
from tailrace.stream import Writer, read_all
from tailrace.weights import folder
from tailrace.weights.store import Store
from tailrace.weights.subscriber import Subscriber
from tailrace.weights.tensors import digest
from tailrace.wire import Wire
from tests.trainer.conftest import Mill
from tests.trainer.lives import trained
from tests.trainer.traffic import MODEL, trajectory


def test_the_first_start_publishes_version_0_as_the_model_folder(mill: Mill) -> None:
    mill.trainer()
    [first] = mill.versions()
    assert (first.version, first.kind, first.base_version) == (0, "keyframe", None)
    assert first.digest == digest(folder.read(mill.settings.model_dir))
    assert [(r.start, r.end, r.held) for r in first.ranges] == [(0, 0, [])] * 2
    assert len(unpack_logprobs(first.canary.logprobs)) == 16


def test_a_batch_becomes_a_step_and_a_version(mill: Mill) -> None:
    trainer = mill.trainer()
    mill.put(*(trajectory(n) for n in range(8)))
    assert trainer.turn()
    first, second = mill.versions()
    [step] = mill.steps()
    assert (second.version, second.base_version, second.kind) == (1, 0, "delta")
    assert (step.version, step.step, step.reseeded) == (1, 1, False)
    assert len(step.inputs) == 8
    assert {r.outcome for r in mill.receipts()} == {"trained"}
    assert second.digest != first.digest
    for name in ("ess", "mismatch_kl", "clip_fraction", "grad_norm", "entropy", "step_s"):
        assert name in step.figures and name in second.figures
    report = mill.audit()
    assert report.ok, report.problems
    assert report.trajectories.outcomes == {"trained": 8}


def test_what_is_published_is_what_a_subscriber_ends_on(mill: Mill) -> None:
    trainer = mill.trainer()
    mill.put(*(trajectory(n) for n in range(16)))
    while trainer.turn():
        pass
    subscriber = Subscriber(mill.log, Wire(), model=MODEL)
    subscriber.catch_up()
    store = Store.empty()
    subscriber.advance(store)
    subscriber.close()
    assert store.version == 2 and store.digest == trainer.head.digest


def test_decisions_without_training_are_published_after_account_s(mill: Mill) -> None:
    trainer = mill.trainer()
    mill.put(trajectory(1, reward=None), trajectory(2), trajectory(3, learn=False))
    assert not trainer.turn()
    assert trainer.head.version == 0
    mill.clock.now_s += mill.settings.account_s
    trainer.turn()
    first, second = mill.versions()
    assert (second.version, second.kind, second.chunks) == (1, "delta", None)
    assert second.digest == first.digest == second.base_digest
    assert sorted(len(r.held) for r in second.ranges) == [0, 1]
    assert {(r.outcome, r.reason) for r in mill.receipts()} == {
        ("filtered", "no_reward"),
        ("filtered", "no_consent"),
    }
    report = mill.audit()
    assert report.ok and report.trajectories.in_flight == 1


def test_a_smaller_batch_is_trained_when_it_has_waited(mill: Mill) -> None:
    trainer = mill.trainer()
    mill.put(*(trajectory(n) for n in range(5)))
    assert not trainer.turn()
    mill.clock.now_s += mill.settings.batch_wait_s
    assert trainer.turn()
    assert [len(step.inputs) for step in mill.steps()] == [5]


def test_a_drain_trains_what_is_held_and_accounts_for_everything(mill: Mill) -> None:
    trainer = mill.trainer()
    mill.put(*(trajectory(n) for n in range(11)))
    assert trainer.turn()
    mill.drain()
    assert trainer.turn()
    assert [len(step.inputs) for step in mill.steps()] == [8, 3]
    mill.put(trajectory(20))
    mill.drain()
    assert not trainer.turn()
    report = mill.audit()
    assert report.ok, report.problems
    assert report.trajectories.in_flight == 0
    assert report.trajectories.outcomes == {"filtered": 1, "trained": 11}
    assert trainer.head.version == 3 and trainer.head.chunks is None


def test_several_steps_can_make_one_version(mill: Mill) -> None:
    trainer = mill.trainer(publish_steps=2)
    mill.put(*(trajectory(n) for n in range(24)))
    for _ in range(3):
        assert trainer.turn()
    assert [(s.step, s.version) for s in mill.steps()] == [(1, 1), (2, 1)]
    assert (trainer.head.first_step, trainer.head.last_step) == (1, 2)
    mill.clock.now_s += mill.settings.account_s
    trainer.turn()
    assert [(s.step, s.version) for s in mill.steps()] == [(1, 1), (2, 1), (3, 2)]
    assert mill.audit().ok


def test_keyframes_come_every_so_many_versions(mill: Mill) -> None:
    trainer = mill.trainer(keyframe_versions=2)
    mill.put(*(trajectory(n) for n in range(24)))
    while trainer.turn():
        pass
    assert [u.kind for u in mill.versions()] == ["keyframe", "delta", "keyframe", "delta"]
    assert [u.keyframe_version for u in mill.versions()] == [0, 0, 2, 2]


def test_a_step_that_is_not_finite_is_skipped_accounted_and_alarmed(mill: Mill) -> None:
    trainer = mill.trainer(max_reward=1e39)
    mill.put(*(trajectory(n, reward=1e38 * (-1) ** n) for n in range(8)))
    trainer.turn()
    mill.clock.now_s += mill.settings.account_s
    mill.put(*(trajectory(n) for n in range(10, 18)))
    assert trainer.turn()
    assert {(r.outcome, r.reason) for r in mill.receipts()} == {
        ("filtered", "non_finite"),
        ("trained", None),
    }
    assert [(a.stream, a.state) for a in mill.read(topics.ALARMS)] == [
        ("trainer.non_finite", "fired"),
        ("trainer.non_finite", "cleared"),
    ]
    assert [step.step for step in mill.steps()] == [1]
    assert mill.audit().ok


def test_a_record_without_a_finite_gradient_does_not_cost_the_others(mill: Mill) -> None:
    trainer = mill.trainer()
    cold = {"temperature": "1e-39"}
    mill.put(trajectory(20, reward=1e300), trajectory(21, reward=-2e3))
    mill.put(trajectory(22, sampling=cold), trajectory(23, sampling={"temperature": "1" * 400}))
    mill.put(*(trajectory(n) for n in range(8)))
    assert trainer.turn()
    assert Counter((r.outcome, r.reason) for r in mill.receipts()) == {
        ("untrainable", "reward"): 2,
        ("untrainable", "temperature"): 1,
        ("untrainable", "content"): 1,
        ("trained", None): 8,
    }
    assert abs(trainer._learner.baselines.state()["means"][0][1]) <= 1.0
    assert mill.audit().ok


def test_what_cannot_be_read_is_buried_and_accounted(mill: Mill) -> None:
    trainer = mill.trainer()
    producer = mill.log.producer()
    producer.append("trajectories", b"rubbish", key=b"default:s", partition=0)
    producer.append("trajectories", None, key=None, partition=1)
    producer.append("control", b"rubbish", key=b"tiny")
    producer.close()
    trainer.turn()
    mill.clock.now_s += mill.settings.account_s
    trainer.turn()
    assert {(r.outcome, r.reason) for r in mill.receipts()} == {("untrainable", "invalid")}
    sources = [r.headers["tailrace-source"] for r in read_all(mill.log, "dead-letters")]
    assert sorted(sources) == [b"control/0/0", b"trajectories/0/0", b"trajectories/1/0"]
    assert mill.audit().ok


def test_no_receipt_speaks_of_a_dead_letter_that_is_not_there(
    mill: Mill, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = mill.trainer()
    letter: Future[Position] = Future()
    letter.set_exception(LogError("dead-letters: not acknowledged"))
    monkeypatch.setattr(trainer._writer, "bury", lambda *arguments: letter)
    producer = mill.log.producer()
    producer.append("trajectories", b"rubbish", key=b"default:s", partition=0)
    producer.close()
    trainer.turn()
    mill.clock.now_s += mill.settings.account_s
    with pytest.raises(LogError, match="not acknowledged"):
        trainer.turn()
    assert mill.receipts() == [] and len(mill.versions()) == 1


def test_a_record_in_another_partition_than_its_ids_says_nothing_of_its_id(mill: Mill) -> None:
    mill.put(*(trajectory(n) for n in range(7)))
    revision = trajectory(8, supersedes=trajectory(0).trajectory_id)
    producer = mill.log.producer()
    writer = Writer(producer, Wire())
    for event in (revision, trajectory(7)):
        home = partition_of(event.interaction_id.partition("~")[0].encode(), 2)
        writer.write(topics.TRAJECTORIES, event, partition=1 - home)
    producer.close()
    mill.put(trajectory(7))
    trainer = mill.trainer()
    assert trainer.turn()
    receipts = mill.receipts()
    assert Counter((r.outcome, r.reason) for r in receipts) == {
        ("untrainable", "misplaced"): 2,
        ("trained", None): 8,
    }
    assert {r.subject_id for r in receipts if r.reason == "misplaced"} == {""}
    assert trainer._intake.known.state(revision.trajectory_id) is None
    assert mill.audit().ok


def test_a_second_trainer_ends_the_first(mill: Mill) -> None:
    first = mill.trainer()
    second = mill.trainer()
    mill.put(*(trajectory(n) for n in range(8)))
    with pytest.raises(Fenced):
        first.turn()
    assert second.turn()
    assert mill.audit().ok


def test_records_that_expired_unread_are_stale_by_range(mill: Mill) -> None:
    trainer = mill.trainer()
    mill.put(*(trajectory(n) for n in range(6)))
    trainer.turn()
    mill.clock.now_s += mill.settings.batch_wait_s
    trainer.turn()
    trainer.close()
    mill.forget(trainer)
    mill.put(*(trajectory(n) for n in range(6, 12)))
    mill.log.delete_before("trajectories", mill.log.ends("trajectories"))
    mill.put(*(trajectory(n) for n in range(12, 30)))
    trainer = mill.trainer()
    while trainer.turn():
        pass
    mill.drain()
    trainer.turn()
    expired = [r for u in mill.versions() for r in u.ranges if r.expired_to is not None]
    assert len(expired) == 2
    report = mill.audit()
    assert report.ok, report.problems
    assert report.trajectories.in_flight == 0


@pytest.mark.parametrize("wrong", ["model_dir", "state_dir"])
def test_a_start_that_cannot_work_leaves_the_trainer_that_does_alone(
    mill: Mill, tmp_path: Path, wrong: str
) -> None:
    running = trained(mill, 1)
    place = tmp_path / wrong
    if wrong == "model_dir":
        place.mkdir()  # with no model in it
    else:
        place.touch()  # where no folder can be
    with pytest.raises(SettingsError, match=wrong):
        mill.trainer(**{wrong: place})
    mill.put(*(trajectory(n) for n in range(8, 16)))
    assert running.turn(0.0)
    assert mill.versions()[-1].version == 2


def test_what_a_working_trainer_is_writing_stays_until_it_is_fenced(
    mill: Mill, tmp_path: Path
) -> None:
    trained(mill, 1)
    writing = mill.settings.own_dir / ".partial-v00000001-0"
    writing.mkdir()
    with pytest.raises(SettingsError, match="key"):
        mill.trainer(signing_key=tmp_path / "none.key")
    assert writing.is_dir()
    mill.trainer()
    assert not writing.exists()
