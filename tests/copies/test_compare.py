"""Two prefixes side by side: numbers worked out by hand, and a replay that differs in nothing."""

from __future__ import annotations

from msgspec.structs import replace
import pytest

from tailrace import events, ids, topics
from tailrace.compare.account import Account
from tailrace.estimates import paired
from tailrace.log.memory import MemoryLog
from tailrace.stream import Decoder, Writer, read_all
from tailrace.wire import Wire
from tests.copies.conftest import Command
from tests.copies.past import decide, lay, replayed
from tests.rewards.history import START_MS
from tests.rewards.test_join import SPEC
from tests.rewards.test_trial import OTHER, story


@pytest.fixture
def past() -> MemoryLog:
    """A story, and what became of it under its spec, that spec again, and another."""
    log = lay(story())
    decide(log, "", SPEC)
    for prefix in ("same.", "half."):
        replayed(log, "", prefix).run()
    decide(log, "same.", SPEC, copy=True)
    decide(log, "half.", replace(OTHER, late="drop"), copy=True)
    return log


def test_a_replay_under_the_same_spec_differs_in_nothing(past: MemoryLog, command: Command) -> None:
    found = command(past, "compare", "", "same.", "--json")
    assert found["rewards"]["answers"] == [9, 9] and found["rewards"]["both"] == 9
    assert found["rewards"]["paired"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert found["rewards"]["changed"]["value"] == 0.0 and found["rewards"]["largest"] == []
    assert found["feedback"]["both"] == 9 and found["feedback"]["changes"] == {}
    assert found["versions"]["counts"] == [0, 0]


def test_another_spec_makes_its_difference(past: MemoryLog, command: Command) -> None:
    found = command(past, "compare", "", "half.", "--json")
    rewards = found["rewards"]
    # Four of eight said no, which is worth half; the ninth has a reward in one of them alone.
    assert rewards["paired"]["value"] == pytest.approx(4 * 0.5 / 8)
    assert rewards["paired"]["high"] == paired([0.0, 0.5] * 4).high
    assert rewards["changed"]["value"] == pytest.approx(5 / 9)
    assert rewards["terms"]["thumbs"]["value"] == pytest.approx(4 * 0.5 / 8)
    assert len(rewards["largest"]) == 5
    feedback = found["feedback"]
    assert feedback["changes"] == {"corrected -> late": 1}
    assert feedback["outcomes"]["late"]["counts"] == [0, 1]
    assert feedback["outcomes"]["late"]["difference"]["value"] == pytest.approx(1 / 9)
    code, said = command(past, "compare", "", "half.")
    assert code == 0 and "'' and 'half.': 9 and 9 answers, 9 in both" in said
    assert "corrected -> late: 1" in said
    words = ("--since", START_MS + 2000, "--until", START_MS + 4000, "--json")
    part = command(past, "compare", "", "half.", *words)
    assert part["rewards"]["both"] == 2 and part["feedback"]["both"] == 2


def test_versions_alarms_and_what_the_trainer_did(past: MemoryLog, command: Command) -> None:
    for prefix, digest, fired in (("", "a", 2), ("same.", "b", 1)):
        writer = Writer(past.producer(), Wire(), prefix=prefix)
        for version in range(3):
            writer.write(
                topics.MODEL_UPDATES,
                events.ModelUpdate(
                    model="m",
                    version=version,
                    created_ms=1,
                    kind="delta",
                    digest="0" if version < 2 else digest,
                ),
            )
            writer.write(topics.STEPS, events.Step(model="m", version=version, event_time_ms=1))
        for _ in range(fired):
            alarm = events.Alarm(stream="reward", detector="adwin", event_time_ms=1)
            writer.write(topics.ALARMS, alarm)
        receipt = events.Receipt(
            subject_id="t",
            stage="trainer",
            model="m",
            event_time_ms=1,
            outcome="trained" if fired == 2 else "stale",
            version=2,
        )
        writer.write(topics.RECEIPTS, receipt, key="k", partition=0)
    found = command(past, "compare", "", "same.", "--model", "m", "--json")
    assert found["versions"] == {
        **{"counts": [3, 3], "newest": [2, 2], "steps": [3, 3], "equal": 2},
        "first_difference": 2,
    }
    assert found["alarms"] == {"reward/adwin": [2, 1]}
    assert found["trajectories"]["changes"] == {"trained -> stale": 1}
    code, said = command(past, "compare", "", "none.")
    assert code == 1 and "there is no prefix 'none.': none.trajectories is not there" in said


def test_of_a_time_the_trajectories_that_began_then_count(
    past: MemoryLog, command: Command
) -> None:
    decoder = Decoder(past, Wire())
    found = [decoder.decode(record) for record in read_all(past, "trajectories")]
    made = {t.trajectory_id: t for t in found if isinstance(t, events.Trajectory)}
    for prefix, outcome in (("", "trained"), ("same.", "stale")):
        writer = Writer(past.producer(), Wire(), prefix=prefix)
        for name in (*made, "unknown"):
            receipt = events.Receipt(
                subject_id=name,
                stage="trainer",
                model="m",
                event_time_ms=1,
                outcome=outcome,
                version=1,
            )
            writer.write(topics.RECEIPTS, receipt, key="k", partition=0)
    words = ("compare", "", "same.", "--model", "m", "--json")
    whole = command(past, *words)["trajectories"]
    assert whole["changes"] == {"trained -> stale": len(made) + 1}
    since, until = START_MS + 2000, START_MS + 4000
    part = command(past, *words, "--since", since, "--until", until)["trajectories"]
    within = [t for t in made.values() if since <= ids.turn_time_ms(t.interaction_id) < until]
    assert 0 < len(within) < len(made) and part["records"] == [len(within)] * 2
    assert part["changes"] == {"trained -> stale": len(within)}


def test_what_is_repeated_says_nothing_of_what_was_trained() -> None:
    account = Account()
    for subject, outcome, version in (
        ("t", "trained", 1),
        ("t", "duplicate", 2),
        ("", "dead_letter", 1),
        ("u", "duplicate", 2),
    ):
        receipt = events.Receipt(
            subject_id=subject,
            stage="trainer",
            model="m",
            event_time_ms=1,
            outcome=outcome,
            version=version,
        )
        account.take(receipt, "m")
    assert account.trained == {"t": "trained"}
