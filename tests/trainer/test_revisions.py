"""A revision of an answer that was trained is trained as the difference, and an answer once."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest

from services.trainer.known import Known, KnownIds
from services.trainer.routes import Routes
from services.trainer.settings import Settings
from tailrace.events import StepInput, TrajectoryContent
from tests.trainer.test_intake import Reading
from tests.trainer.traffic import TIME_MS, trajectory

ALREADY = ("filtered", "already_trained")


def revised(reading: Reading, reward: float | None, before: int, number: int) -> Any:
    """Offer revision ``number`` of trajectory 1, after ``before``."""
    event = trajectory(1, trajectory_id=f"r{number}", supersedes=f"r{before}", reward=reward)
    return reading.outcome(event)


def started(reward: float = 1.0, **changes: Any) -> Reading:
    """An intake that has trained trajectory 1 with a reward."""
    reading = Reading(**changes)
    reading.offer(trajectory(1, trajectory_id="r0", reward=reward))
    assert reading.train() == 1
    return reading


def test_the_difference_is_trained_and_receipted_as_such() -> None:
    reading = started()
    assert revised(reading, -0.5, 0, 1) is None
    [answer] = reading.intake.take(8)
    assert (answer.before, answer.reward, answer.objective) == (1.0, -0.5, "cispo")
    [decision] = reading.intake.settle([answer], 0.0, "trained")
    assert (decision.outcome, decision.reason) == ("compensated", None)
    assert revised(reading, 1.0, 1, 2) is None
    [answer] = reading.intake.take(8)
    assert (answer.before, answer.reward) == (-0.5, 1.0)


def test_what_a_bound_cut_off_the_next_revision_makes_up_for() -> None:
    reading = started(compensation_max=0.5)
    for number, (before, reward) in enumerate([(1.0, 0.5), (0.5, 0.0), (0.0, -0.5)], 1):
        assert revised(reading, -1.0, number - 1, number) is None
        [answer] = reading.intake.take(8)
        assert (answer.before, answer.reward) == (before, reward)
        reading.intake.settle([answer], 0.0, "trained")


@pytest.mark.parametrize("reward", [None, 1.0, 1e9])
def test_what_makes_no_difference_was_trained_already(reward: float | None) -> None:
    reading = started()
    assert revised(reading, reward, 0, 1) == ALREADY
    assert revised(reading, -1.0, 1, 2) is None, "what it was trained with is still known"


def test_without_a_bound_or_a_known_reward_nothing_is_compensated() -> None:
    assert revised(started(compensation_max=0.0), -1.0, 0, 1) == ALREADY
    reading = Reading()
    reading.intake.known.decided("r0", 0, 0, "trained")
    assert revised(reading, -1.0, 0, 1) == ALREADY


@pytest.mark.parametrize(
    "end", ["superseded", "non_finite", "too_few", "age", "backlog", "kto", "retracted"]
)
def test_whatever_else_becomes_of_a_compensation_its_line_was_trained(end: str) -> None:
    reading = started(max_held=1)
    assert revised(reading, -1.0, 0, 1) is None
    intake = reading.intake
    if end in ("superseded", "retracted"):
        reward = 0.0 if end == "superseded" else None
        assert revised(reading, reward, 1, 2) == (None if reward is not None else ALREADY)
    elif end in ("non_finite", "too_few"):
        intake.settle(intake.take(8), 0.0, "filtered", end)
    elif end == "backlog":
        reading.offer(trajectory(2), TIME_MS + 1)
    else:
        for version in range(1, 5 if end == "age" else 3):
            intake.ages.version(version, changed=True)
        if end == "kto":
            intake._routes = Routes(Settings(fresh_versions=0, corrected_versions=0))
    intake.refresh(0.0)
    [found] = [d for d in intake.account().decisions if d.trajectory_id == "r1"]
    assert (found.outcome, found.reason) == ALREADY
    known = intake.known.memory.ids["r1"]
    assert (known.state, known.reward) == ("trained", 1.0)


def test_a_demonstration_is_no_compensation() -> None:
    """What people wrote is not a reward of what was sampled, before or after."""
    edit = TrajectoryContent(prompt_token_ids=trajectory(1).content.prompt_token_ids)  # type: ignore[union-attr]
    edit = TrajectoryContent(prompt_token_ids=edit.prompt_token_ids, demonstration="so")
    shown = {"trajectory_id": "r0", "content": edit}
    reading = Reading()
    reading.encodes()
    reading.offer(trajectory(1, **shown))
    assert reading.train() == 1
    assert revised(reading, -1.0, 0, 1) == ALREADY
    reading = started()
    reading.encodes()
    late = trajectory(1, trajectory_id="r1", supersedes="r0", content=edit)
    assert reading.outcome(late) == ALREADY


def test_steps_say_what_receipts_do_not() -> None:
    known = KnownIds(1000)
    known.decided("a", 0, 5, "trained")
    known.decided("b", 0, 5, "trained")
    known.decided("c", 0, 5, "untrained")
    said = [("a", "tis", 0.5), ("b", "kto", 0.5), ("c", "tis", 0.5), ("d", "tis", 0.5)]
    known.trained(StepInput(trajectory_id=i, objective=o, reward=r) for i, o, r in said)
    assert known.memory.ids == {
        "a": Known(0, 5, "trained", 0.5),
        "b": Known(0, 5, "trained", None),
        "c": Known(0, 5, "untrained", None),
    }


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([None, -1.0, -0.5, 0.0, 1.0]),
            st.sampled_from(["train", "train", "fail", "wait", "publish", "age"]),
        ),
        min_size=1,
        max_size=12,
    ),
    st.sampled_from([0.0, 0.5, 2.0]),
)
def test_a_line_is_trained_once_and_its_differences_add_up(
    says: list[tuple[float | None, str]], bound: float
) -> None:
    reading = Reading(compensation_max=bound, fresh_versions=1, corrected_versions=2)
    trained: list[Any] = []
    decisions: list[Any] = []
    version = 0
    for number, (reward, then) in enumerate(says):
        before = None if number == 0 else f"r{number - 1}"
        event = trajectory(1, trajectory_id=f"r{number}", supersedes=before, reward=reward)
        reading.offer(event)
        reading.intake.refresh(0.0)
        if then in ("train", "fail"):
            taken = reading.intake.take(8)
            outcome = ("trained", None) if then == "train" else ("filtered", "non_finite")
            reading.intake.settle(taken, 0.0, *outcome)
            trained += taken if then == "train" else []
        elif then == "age":
            version += 1
            reading.intake.ages.version(version, changed=True)
        else:
            decisions += reading.intake.account().decisions
            reading.intake.published()
    decisions += reading.intake.account().decisions
    assert len({d.offset for d in decisions}) == len(decisions)
    assert sum(d.outcome == "trained" for d in decisions) <= 1
    used = {d.trajectory_id for d in decisions if d.outcome in ("trained", "compensated")}
    assert used == {answer.trajectory_id for answer in trained}
    level = None
    for answer in trained:
        assert answer.before == level
        assert level is None or 0.0 < abs(answer.reward - level) <= bound
        level = answer.reward
        if answer.objective == "kto":
            assert answer is trained[-1], "no difference to it means anything"
