"""A stretch of history is trained again: to the published digest, under a prefix of its own."""

from __future__ import annotations

from importlib.metadata import version

import msgspec
import pytest
import torch

from services.trainer.ledger import NoReplay
from services.trainer.replay.absence import absent
from services.trainer.replay.course import doubts
from services.trainer.replay.moments import Moments
from services.trainer.replay.result import Refused, Request, Result
from services.trainer.replay.retraining import retrain
from services.trainer.settings import Settings
from tailrace import reading, topics
from tailrace.events import Step, StepInput
from tailrace.topics import named
from tailrace.updates import ModelUpdates
from tailrace.wire import Wire
from tests.trainer.conftest import Mill
from tests.trainer.lives import followed, run, trained
from tests.trainer.traffic import MODEL, sampled, trajectory

INTO = "again."


def replay(mill: Mill, begin: int, end: int, **changes: object) -> Result:
    fields = {"into": INTO, "checkpoints": mill.settings.own_dir} | changes
    request = Request(begin=begin, end=end, **fields)  # type: ignore[arg-type]
    said: list[str] = []
    result = retrain(
        mill.log, Wire(), mill.settings, request, wall_ms=mill.clock.wall_ms, say=said.append
    )
    assert said
    return result


def again(mill: Mill, prefix: str = INTO) -> Mill:
    """What lies under the prefix of a replay."""
    other = Mill.__new__(Mill)
    other.log, other.prefix, other.clock = mill.log, prefix, mill.clock
    return other


def ends(mill: Mill) -> dict[str, dict[int, int]]:
    return {t.name: mill.log.ends(named(t, mill.prefix)) for t in topics.TOPICS}


def test_it_ends_on_the_published_digest_and_touches_nothing_of_the_original(mill: Mill) -> None:
    trained(mill, 4)
    before = ends(mill)
    result = replay(mill, 1, 4)
    assert result.equal and result.ok and result.first_difference is None
    assert (result.steps, result.inputs, result.left_out) == (3, 24, 0)
    assert (result.origin, result.origin_kind, result.warnings) == (0, "beginning", [])
    assert result.changed_weights == result.max_relative_change == 0.0
    assert (result.trained_mean_abs_change or 0.0) > 0.0
    assert ends(mill) == before

    made, originals = again(mill), mill.versions()
    assert [(u.version, u.base_version, u.kind, u.digest) for u in made.versions()] == [
        (1, None, "keyframe", originals[1].digest),
        *((u.version, u.base_version, "delta", u.digest) for u in originals[2:]),
    ]
    assert [u.canary for u in made.versions()] == [u.canary for u in originals[1:]]
    assert [(s.step, s.version, s.inputs) for s in made.steps()] == [
        (s.step, s.version, s.inputs) for s in mill.steps()[1:]
    ]
    assert [s.figures["loss"] for s in made.steps()] == [
        s.figures["loss"] for s in mill.steps()[1:]
    ]
    mine = [(r.subject_id, r.source, r.outcome, r.version) for r in made.receipts()]
    assert sorted(mine, key=str) == sorted(
        ((r.subject_id, r.source, r.outcome, r.version) for r in mill.receipts() if r.version != 1),
        key=str,
    )
    with ModelUpdates(mill.log, MODEL, prefix=INTO) as updates:
        assert updates.at(4).manifest.digest == originals[4].digest


def test_over_a_rollback_revisions_and_what_was_filtered(mill: Mill) -> None:
    trainer = trained(mill, 3)
    mill.put(trajectory(40, reward=None), trajectory(41))
    mill.roll_back(1)
    trainer = followed(mill, trainer)
    run(trainer)
    mill.put(*(sampled(n, 4) for n in range(50, 56)), trajectory(41))
    first = sampled(60, 4)
    revised = msgspec.structs.replace(
        sampled(61, 4),
        interaction_id=first.interaction_id,
        supersedes=first.trajectory_id,
        reward=-(first.reward or 0.0),
    )
    mill.put(first, revised)
    mill.drain()
    run(trainer)
    head = trainer.head
    assert (head.version, head.base_version) == (5, 4)
    outcomes = {r.outcome for r in mill.receipts() if (r.version or 0) > 3}
    assert outcomes == {"trained", "filtered", "duplicate", "superseded"}
    for begin in (0, 1, 4):
        into = f"from{begin}."
        result = replay(mill, begin, 5, into=into)
        assert result.equal, begin
        made = again(mill, into)
        assert [u.version for u in made.versions()] == [v for v in (0, 1, 4, 5) if v >= begin]
        assert len(made.receipts()) == sum(
            (r.version or 0) > begin and r.version in (1, 4, 5) for r in mill.receipts()
        )
    with pytest.raises(Refused, match="not made from version 2; the versions before it are 0, 1"):
        replay(mill, 2, 5)
    with pytest.raises(Refused, match="no version 9"):
        replay(mill, 0, 9)
    with pytest.raises(Refused, match="must be before"):
        replay(mill, 5, 5)
    assert replay(mill, 1, 3).equal, "a branch that was left is history too"


def test_it_begins_at_the_nearest_checkpoint_and_leaves_the_folder_as_it_is(mill: Mill) -> None:
    trainer = trained(mill, 2)
    trainer.stop()
    mill.put(*(sampled(n, 2) for n in range(30, 46)))
    run(trainer)
    [saved] = mill.settings.own_dir.glob("v*")
    (mill.settings.own_dir / ".partial-v00000003-0").mkdir()
    before = sorted(path.name for path in mill.settings.own_dir.rglob("*"))
    # Nothing before the checkpoint is needed any more.
    lost = max((i.partition, i.offset) for i in mill.steps()[0].inputs)
    mill.log.delete_before("trajectories", {lost[0]: lost[1] + 1})
    for begin, into in ((2, "two."), (3, "three.")):
        result = replay(mill, begin, 4, into=into)
        assert result.equal
        assert (result.origin, result.origin_kind, result.steps) == (2, "checkpoint", 4 - begin)
    assert sorted(path.name for path in mill.settings.own_dir.rglob("*")) == before
    with pytest.raises(Refused, match="is gone.*checkpoints of versions 2: --from-version"):
        replay(mill, 1, 4)
    state = saved / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-1] + b"\x55")
    with pytest.raises(Refused, match="is gone"):
        replay(mill, 3, 4)


def test_without_an_answer_or_a_user(mill: Mill) -> None:
    users = {n: "ann" for n in (9, 10, 30)} | {n: "bob" for n in range(16, 24)}
    mill.put(*(trajectory(n, user=users.get(n)) for n in range(32)))
    run(mill.trainer())
    assert mill.versions()[-1].version == 4
    one = trajectory(12)
    result = replay(mill, 1, 4, without=(one.interaction_id,))
    assert result.ok and not result.equal
    assert (result.left_out, result.inputs, result.steps) == (1, 24, 3)
    made = again(mill)
    [where] = [r for r in made.receipts() if r.outcome != "trained"]
    assert (where.outcome, where.reason) == ("filtered", "left_out")
    assert where.subject_id == one.trajectory_id
    assert result.first_difference == where.version
    theirs = {(r.subject_id, r.version) for r in mill.receipts() if (r.version or 0) > 1}
    assert {(r.subject_id, r.version) for r in made.receipts()} == theirs
    assert sum(len(s.inputs) for s in made.steps()) == 23
    assert 0.0 < (result.changed_weights or 0.0) < 1.0
    assert 0.0 < (result.mean_abs_change or 0.0) < (result.trained_mean_abs_change or 0.0)
    assert (result.canary_max_abs_change or 0.0) >= (result.canary_mean_abs_change or 0.0) > 0.0

    result = replay(mill, 0, 4, without=("ann", one.interaction_id), into="both.")
    assert (result.left_out, result.inputs) == (4, 32)

    # A batch that was all of one user: no step is left of it.
    into = "bob."
    result = replay(mill, 0, 4, without=("bob",), into=into)
    skipped = {s.version for s in mill.steps()} - {s.version for s in again(mill, into).steps()}
    batches = [{i.trajectory_id for i in s.inputs} for s in mill.steps()]
    whole = {trajectory(n).trajectory_id for n in range(16, 24)} in batches
    assert len(skipped) == whole == result.steps_skipped.get("empty", 0)
    assert result.left_out == 8 and result.steps == 4 - whole


def test_nobody_is_left_out_who_was_not_trained_there(mill: Mill) -> None:
    trained(mill, 2)
    first = next(i.trajectory_id for i in mill.steps()[0].inputs)
    early = next(n for n in range(16) if trajectory(n).trajectory_id == first)
    for name in ("nobody", trajectory(70).interaction_id, trajectory(early).interaction_id):
        with pytest.raises(ValueError, match="among the 8 answers that were trained in this"):
            replay(mill, 1, 2, without=(trajectory(15).interaction_id, name))
    with pytest.raises(Exception, match="again.model-updates"):
        mill.log.partitions(named(topics.MODEL_UPDATES, INTO))


def test_over_a_trainer_that_began_with_a_new_optimizer(mill: Mill) -> None:
    """The steps after it name two threads: the replay takes as many."""
    mill.lose(trained(mill, 2))
    mill.put(*(sampled(n, 2) for n in range(30, 46)))
    trainer = mill.trainer(threads=2)
    assert trainer.recovery.optimizer_reset
    run(trainer)
    assert [s.reseeded for s in mill.steps()] == [False, False, True, False]
    result = replay(mill, 1, 4)
    assert (result.equal, result.origin_kind, result.steps) == (True, "beginning", 3)
    # No moments are needed to begin where there were none.
    lost = max((i.partition, i.offset) for s in mill.steps()[:2] for i in s.inputs)
    for partition in (0, 1):
        mill.log.delete_before("trajectories", {partition: 0 if partition != lost[0] else lost[1]})
    for folder in mill.settings.own_dir.glob("v*"):
        folder.rename(folder.with_name(f"gone-{folder.name}"))
    result = replay(mill, 2, 4, into="reset.")
    assert (result.equal, result.origin_kind, result.origin) == (True, "reset", 2)


def test_over_a_trainer_that_took_moments_from_a_checkpoint(mill: Mill) -> None:
    trainer = trained(mill, 2)
    trainer.stop()
    mill.put(*(sampled(n, 2) for n in range(30, 38)))
    run(trainer)
    mill.lose(trainer)
    mill.put(*(sampled(n, 3) for n in range(40, 48)))
    trainer = mill.trainer(replay_steps=0)
    assert trainer.recovery.reseeded and not trainer.recovery.optimizer_reset
    run(trainer)
    assert mill.steps()[-1].reseeded and mill.steps()[-1].figures["reseeded_from"] == 2.0
    for begin, origin in ((1, 0), (2, 2), (3, 2)):
        result = replay(mill, begin, 4, into=f"from{begin}.")
        assert (result.equal, result.origin) == (True, origin), begin
    # It does not come by version 2, but its checkpoint is there.
    result = replay(mill, 3, 4, into="stored.", reseed=True)
    assert (result.equal, result.origin_kind) == (True, "asked")
    for folder in mill.settings.own_dir.glob("v*"):
        folder.rename(folder.with_name(f"gone-{folder.name}"))
    with pytest.raises(Refused, match="checkpoint of version 2, which is not there"):
        replay(mill, 3, 4, into="gone.", reseed=True)
    assert replay(mill, 3, 4, into="passed.").equal
    # What is left out before has no part in the moments either.
    answer = next(i.trajectory_id for i in mill.steps()[1].inputs)
    [left] = [n for n in range(16) if trajectory(n).trajectory_id == answer]
    result = replay(mill, 1, 4, into="other.", without=(trajectory(left).interaction_id,))
    assert result.first_difference == 2 and result.steps == 3


def test_moments_that_nobody_has_are_said_to_be_missing(mill: Mill) -> None:
    learner = trained(mill, 1)._learner
    step = msgspec.structs.replace(mill.steps()[0], reseeded=True, step=7, version=5)
    figures = {"optimizer_reset": 0.0}
    for more, said in (({}, "that it does not name"), ({"reseeded_from": 3.0}, "of version 3")):
        named = msgspec.structs.replace(step, figures=figures | more)
        moments = Moments(learner, [named], root=0, stored=lambda version: None)
        with pytest.raises(NoReplay, match=f"{said}.*version 5 is the first after it"):
            moments.reseed(named)


def test_with_the_weights_alone_it_says_that_it_ends_elsewhere(mill: Mill) -> None:
    trained(mill, 3)
    result = replay(mill, 2, 3, reseed=True)
    assert result.ok and not result.equal
    assert (result.origin, result.origin_kind, result.first_difference) == (2, "asked", 3)


def test_other_settings_end_on_another_digest(mill: Mill) -> None:
    trained(mill, 3)
    kept = mill.settings
    mill.settings = msgspec.structs.replace(kept, beta2=0.5, lr=1.0, seed=9)
    result = replay(mill, 0, 3)
    assert not result.equal and not result.ok and result.first_difference == 1
    with pytest.raises(Refused, match="version 1 has the digest .* settings, code or machine"):
        replay(mill, 1, 3, into="other.")
    mill.settings = msgspec.structs.replace(kept, lr=1.0, seed=9)
    assert replay(mill, 0, 3, into="named.").equal, "what Steps name is not taken from settings"
    with pytest.raises(ValueError, match="taken: again.receipts holds"):
        replay(mill, 0, 3)
    with pytest.raises(ValueError, match="the original's own"):
        replay(mill, 0, 3, into="")


def test_of_a_preference_both_answers_are_left_out(mill: Mill) -> None:
    mill.put(*(trajectory(n, user=f"u{n}") for n in range(6)))
    placed = {
        t.user: (r.partition, r.offset) for r, t in reading.read("trajectories", log=mill.log)
    }
    objectives = ["cispo", "dpo", "dpo", "sft", "dpo", "dpo"]
    inputs = [
        StepInput(
            partition=placed[f"u{n}"][0],
            offset=placed[f"u{n}"][1],
            trajectory_id=trajectory(n).trajectory_id,
            objective=objective,
        )
        for n, objective in enumerate(objectives)
    ]
    step = Step(event_time_ms=0, inputs=inputs)
    out = absent(mill.log, Wire(), mill.settings, [step], ("u2", "u3"))
    assert out == {placed[name] for name in ("u1", "u2", "u3")}


def test_what_may_make_it_end_elsewhere_is_said() -> None:
    here = Step(event_time_ms=0, torch=torch.__version__, code=version("tailrace"), processes=1)
    assert doubts([here, Step(event_time_ms=0)], Settings()) == []
    there = msgspec.structs.replace(here, torch="1.0", processes=2)
    found = doubts([here, there], Settings(device="cuda"))
    assert [text.partition(", here")[0] for text in found[:2]] == [
        "1 of 2 steps were taken with torch 1.0",
        "1 of 2 steps were taken with processes 2",
    ]
    assert len(found) == 3 and "on cuda" in found[2]
