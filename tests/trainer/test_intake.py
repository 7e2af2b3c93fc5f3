"""Every record has one decision along a chain of versions, and the versions tile the log."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
import msgspec
import pytest

from services.trainer.account import Account, Decision
from services.trainer.answer import Limits, input_of
from services.trainer.intake import Intake
from services.trainer.known import state_after
from services.trainer.records import receipt_of
from services.trainer.settings import Settings
from tailrace.events import StepInput, Trajectory, VersionSpan
from tailrace.log.base import LogRecord
from tests.trainer.traffic import MODEL, TIME_MS, trajectory

LIMITS = Limits(model=MODEL, vocabulary=512, max_tokens=64, max_reward=10.0)
HORIZON_MS = 100_000


class Reading:
    """Feeds an intake from a list that stands for one partition."""

    def __init__(self, **changes: Any) -> None:
        values = {"horizon_s": HORIZON_MS / 1000, "max_age_versions": 3, "max_held": 50} | changes
        self.intake = Intake(LIMITS, Settings(**values))
        self.intake.ranges.begin([0], [])
        self.intake.ages.version(0, changed=True)
        self.offset = 0
        self.inputs: list[StepInput] = []
        """Of the steps since the last version."""

    def offer(
        self, event: Trajectory | None, time_ms: int = TIME_MS, now_s: float = 0.0
    ) -> Decision | None:
        """The record's own decision."""
        record = LogRecord(
            topic="trajectories",
            partition=0,
            offset=self.offset,
            time_ms=time_ms,
            key=b"default:s",
            value=b"",
            headers={},
        )
        self.offset += 1
        held = self.intake.ranges.take((record.partition, record.offset))
        if held is None:
            return None
        decisions = self.intake.offer(record, event, now_s, held=held)
        return next((d for d in decisions if d.offset == record.offset), None)

    def outcome(self, event: Trajectory | None, time_ms: int = TIME_MS) -> tuple[str, str] | None:
        decision = self.offer(event, time_ms)
        return None if decision is None else (decision.outcome, decision.reason or "")

    def encodes(self) -> None:
        """From here on demonstrations can be trained on: a token for each letter, and an end."""
        encode = lambda text: [*map(ord, text), 2] if text else []  # noqa: E731
        self.intake._limits = msgspec.structs.replace(LIMITS, encode=encode)

    def train(self, count: int = 100) -> int:
        taken = self.intake.take(count)
        self.intake.settle(taken, 0.0, "trained")
        self.inputs += map(input_of, taken)
        return len(taken)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"learn": None}, ("filtered", "no_consent")),
        ({"learn": False}, ("filtered", "no_consent")),
        ({"reward": None}, ("filtered", "no_reward")),
        ({"reward": None, "feedback_ids": ["comment"]}, ("filtered", "unscored")),
        ({"reward": float("nan")}, ("untrainable", "reward")),
        ({"reward": 10.0}, None),
        ({"reward": -10.5}, ("untrainable", "reward")),
        ({"error": "engine died"}, ("filtered", "infrastructure_error")),
        ({"untrainable": "top_p"}, ("untrainable", "top_p")),
        ({"content": None}, ("untrainable", "content")),
        ({"logprobs_mode": "raw_logprobs"}, ("untrainable", "logprobs_mode")),
        ({"model": "another"}, ("untrainable", "model")),
        ({"sampling": {"temperature": "0.0"}}, ("untrainable", "temperature")),
        ({"sampling": {"temperature": "0.0099"}}, ("untrainable", "temperature")),
        ({"sampling": {"temperature": "0.01"}}, None),
        ({"sampling": {"temperature": "{"}}, ("untrainable", "content")),
        ({"sampling": {"temperature": "1" * 400}}, ("untrainable", "content")),
        ({"weight_versions": []}, ("untrainable", "weight_versions")),
        ({"weight_versions": [VersionSpan(start=0, end=3)]}, ("untrainable", "unknown_version")),
        ({"closed_log_time_ms": None}, ("untrainable", "closed_log_time")),
        ({"interaction_id": "nonsense"}, ("untrainable", "interaction_id")),
        ({"supersedes": "never seen"}, ("filtered", "predecessor_unknown")),
    ],
)
def test_what_becomes_of_one_record(fields: dict[str, Any], expected: Any) -> None:
    reading = Reading()
    assert reading.outcome(trajectory(1, **fields)) == expected
    assert reading.intake.usable == (expected is None)


def test_what_cannot_be_read_is_untrainable() -> None:
    assert Reading().outcome(None) == ("untrainable", "invalid")


def test_a_repeat_is_a_duplicate_before_and_after_training() -> None:
    reading = Reading()
    assert reading.outcome(trajectory(1)) is None
    assert reading.outcome(trajectory(1)) == ("duplicate", "trajectory_id")
    assert reading.train() == 1
    assert reading.outcome(trajectory(1)) == ("duplicate", "trajectory_id")


def test_nothing_comes_again_beyond_the_horizon() -> None:
    reading = Reading()
    reading.offer(trajectory(1))
    reading.train()
    later_ms = TIME_MS + HORIZON_MS + 5000
    reading.offer(trajectory(2, closed_log_time_ms=later_ms), later_ms)
    reading.intake.settle([], 0.0, "trained")
    reading.intake.account()
    reading.intake.published()
    assert reading.intake.known.memory.ids.keys() == set()
    assert reading.outcome(trajectory(1), later_ms) == ("stale", "horizon")


def test_a_held_record_is_not_past_the_horizon_when_it_is_read_again() -> None:
    before = Reading()
    before.offer(trajectory(1))
    ranges = before.intake.account().ranges
    after = Reading()
    after.intake.ranges.begin([0], ranges)
    after.intake.known.saw(0, TIME_MS + 2 * HORIZON_MS)
    assert after.outcome(trajectory(1)) is None
    assert after.outcome(trajectory(2)) == ("stale", "horizon")


def test_revisions_follow_what_became_of_the_one_before() -> None:
    reading = Reading()
    first, second, third = (trajectory(n).trajectory_id for n in (1, 2, 3))
    reading.offer(trajectory(1))
    assert reading.outcome(trajectory(2, supersedes=first)) is None
    (decision,) = reading.intake.account().decisions
    assert (decision.trajectory_id, decision.outcome) == (first, "superseded")
    assert decision.successor == second
    _, receipt = receipt_of(Settings(), decision, version=1, now_ms=0)
    assert receipt.trajectories == [first, second]
    reading.train()
    already = ("filtered", "already_trained")
    same = trajectory(2).reward
    assert reading.outcome(trajectory(3, supersedes=second, reward=same)) == already
    assert reading.outcome(trajectory(4, supersedes=third, reward=same)) == already
    unknown = ("filtered", "predecessor_unknown")
    assert reading.outcome(trajectory(5, supersedes="?")) == unknown
    assert reading.outcome(trajectory(6, supersedes=trajectory(5).trajectory_id)) == unknown


def test_a_revision_without_a_reward_takes_the_first_one_back() -> None:
    reading = Reading()
    reading.offer(trajectory(1))
    revision = trajectory(2, supersedes=trajectory(1).trajectory_id, reward=None)
    assert reading.outcome(revision) == ("filtered", "no_reward")
    assert reading.intake.usable == 0


def test_age_counts_weight_changes_only() -> None:
    reading = Reading()
    reading.offer(trajectory(1))
    for version in range(1, 20):
        reading.intake.ages.version(version, changed=version <= 3)
    assert reading.intake.refresh(0.0) == []
    reading.intake.ages.version(20, changed=True)
    assert [(d.outcome, d.reason) for d in reading.intake.refresh(0.0)] == [("stale", "age")]
    assert reading.outcome(trajectory(2)) == ("stale", "age")
    ahead = [VersionSpan(version=99, start=0, end=99)]
    count = reading.intake.usable
    assert reading.offer(trajectory(3, weight_versions=ahead)) is not None
    assert reading.intake.usable == count


def test_a_backlog_is_trained_freshest_first_and_bounded() -> None:
    reading = Reading(max_held=10)
    for number in range(15):
        reading.offer(trajectory(number), TIME_MS + number)
    dropped = reading.intake.refresh(0.0)
    assert [d.offset for d in dropped] == [0, 1, 2, 3, 4]
    assert {(d.outcome, d.reason) for d in dropped} == {("stale", "backlog")}
    taken = reading.intake.take(3)
    assert [a.offset for a in taken] == [12, 13, 14]


EVENTS = st.lists(
    st.tuples(
        st.integers(0, 12),  # which trajectory
        st.sampled_from(
            ["new", "new", "new", "unreadable", "no_reward", "revision", "untrainable"]
        ),
        st.integers(0, 14),  # which one a revision is of
        st.sampled_from(["", "", "train", "publish", "restart", "fail"]),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(EVENTS)
def test_any_sequence_decides_each_record_once_and_tiles_the_log(events: list[Any]) -> None:
    log: list[Trajectory | None] = []
    newest: dict[int, str] = {}
    for place, (number, kind, other, _) in enumerate(events):
        fields: dict[str, Any] = {}
        if kind == "revision":
            # Revisions of one answer come one after the other, each of the one before.
            before = newest.get(other, "never seen")
            newest[other] = f"revision {place}"
            fields = {"supersedes": before, "trajectory_id": newest[other]}
            if place % 5 == 0:
                fields["reward"] = None
        elif kind == "no_reward":
            fields = {"reward": None}
        elif kind == "untrainable":
            fields = {"untrainable": "seed"}
        event = None if kind == "unreadable" else trajectory(number, **fields)
        if event is not None and kind != "revision":
            newest.setdefault(number, event.trajectory_id)
        log.append(event)
    accounts: list[Account] = []
    ledger: list[StepInput] = []
    reading = Reading()

    def publish() -> None:
        nonlocal ledger
        accounts.append(reading.intake.account())
        ledger, reading.inputs = ledger + reading.inputs, []
        reading.intake.published()
        reading.intake.ages.version(len(accounts), changed=True)

    def restart() -> None:
        """A new process: ranges from the last manifest, ids from the receipts, what they were
        trained with from the Steps."""
        nonlocal reading
        reading = Reading()
        reading.intake.ranges.begin([0], accounts[-1].ranges if accounts else [])
        for version, account in enumerate(accounts, 1):
            reading.intake.ages.version(version, changed=True)
            for d in account.decisions:
                state = state_after(d.outcome, d.reason)
                if d.trajectory_id and state is not None:
                    reading.intake.known.decided(d.trajectory_id, 0, TIME_MS, state)
        reading.intake.known.trained(ledger)
        reading.offset = reading.intake.ranges.starts()[0]
        read_to(end)

    def read_to(offset: int) -> None:
        while reading.offset < offset:
            reading.offer(log[reading.offset], TIME_MS + reading.offset)

    end = 0
    for _, _, _, then in events:
        end += 1
        read_to(end)
        reading.intake.refresh(0.0)
        if then == "train":
            reading.train(3)
        elif then == "fail":
            reading.intake.settle(reading.intake.take(2), 0.0, "filtered", "non_finite")
        elif then == "publish":
            publish()
        elif then == "restart":
            restart()
    publish()

    decided = Counter(d.offset for a in accounts for d in a.decisions)
    held: set[int] = set()
    start = 0
    for account in accounts:
        [one] = account.ranges
        assert one.start == start
        tile = (set(range(one.start, one.end)) | held) - set(one.held)
        assert {d.offset for d in account.decisions} == tile
        start, held = one.end, set(one.held)
    assert start == len(log)
    assert set(decided) | held == set(range(len(log))) and max(decided.values(), default=1) == 1
    trained = [d.trajectory_id for a in accounts for d in a.decisions if d.outcome == "trained"]
    assert len(trained) == len(set(trained))
    spent = Counter(_root(log, t) for t in trained)
    assert max(spent.values(), default=1) == 1, "two revisions of one answer were trained"
    used = ("trained", "compensated")
    decisions = [d.trajectory_id for a in accounts for d in a.decisions if d.outcome in used]
    assert sorted(decisions) == sorted(i.trajectory_id for i in ledger)
    levels: dict[str, float | None] = {}
    for one in ledger:
        root = _root(log, one.trajectory_id)
        assert one.before == levels.get(root), "a difference is to what was trained"
        levels[root] = one.reward


def _root(log: list[Trajectory | None], trajectory_id: str) -> str:
    """The first revision of a trajectory's line, by the record that came first of each id."""
    before = {}
    for event in log:
        if event is not None and event.trajectory_id not in before:
            before[event.trajectory_id] = event.supersedes
    seen: set[str] = set()
    while before.get(trajectory_id) is not None and trajectory_id not in seen:
        seen.add(trajectory_id)
        trajectory_id = before[trajectory_id] or trajectory_id
    return trajectory_id
