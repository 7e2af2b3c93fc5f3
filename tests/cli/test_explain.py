"""tailrace.explain: a reward, term by term, from what is on the log."""

from __future__ import annotations

import argparse
import json

import msgspec
import pytest

from tailrace import cli, commands, events, explain, ids, topics
from tailrace.events import Component
from tailrace.settings import Common
from tests.cli.told import BEGAN_MS, EARLIER, SESSION, TURN, Told


@pytest.fixture
def told() -> Told:
    return Told()


def test_a_reward_and_its_correction(told):
    thumb = told.say("a", "joined", boolean=True, kind="boolean", user="somebody")
    told.say("b", "corrected", boolean=False, kind="boolean", replaces=thumb)
    told.say("c", "late", "drop", number=4.0, kind="number", metric="stars")
    solved = told.say(
        "d", "joined", subject=SESSION, category="yes", kind="category", metric="solved"
    )
    told.say("e", None, kind="comment", metric="comment", content=events.FeedbackContent(text="ok"))
    told.say("f", "withdrawn", subject=EARLIER, boolean=True)
    grader = Component(name="polite", value=None, weight=2.0, reason="no_feedback")
    discounted = Component(name="solved", value=0.81, weight=1.0, reason="discounted 0.81")
    first = told.close(
        0,
        0.905,
        Component(name="thumbs", value=1.0, weight=1.0),
        discounted,
        grader,
        feedback_ids=[thumb, solved],
    )
    second = told.close(
        1,
        -1.0,
        Component(name="thumbs", value=-2.0, weight=1.0),
        grader,
        supersedes=first,
        feedback_ids=[f"{TURN}!b"],
        preferred_over=[f"{TURN}/1"],
    )
    told.close(1, -1.0, supersedes=first)  # the same again, as after a kill
    told.decide(first, "trained", 42)
    found = explain.gather(told.log, TURN)
    assert [heard.record.feedback_id[-1] for heard in found.feedback] == list("abcde")
    assert [heard.fate and heard.fate.outcome for heard in found.feedback] == [
        "joined",
        "corrected",
        "late",
        "joined",
        None,
    ]
    assert [(one.trajectory_id, one.combined) for one in found.revisions] == [
        (first, "mean"),
        (second, "clipped"),
    ]
    assert found.revisions[0].fate.version == 42
    assert found.revisions[1].fate is None
    words = told.words()
    for line in (
        "  asked: What is the capital of Italy?",
        "answer 0 (stop, version 41)",
        "  Rome.",
        "thumbs True for answer 0 by somebody: joined",
        "stars 4.0 for answer 0 by user: late (drop)",
        "solved yes for the session by user: joined",
        "comment ok for answer 0 by user: in flight",
        "reward 0.905, which is the mean of",
        "  solved 0.81 × 1 (discounted 0.81)",
        "  polite none (no_feedback)",
        "spec abc, trajectory t0-0: trained, version 42",
        "reward -1, it seems clipped, of",
        f"  better than {TURN}/1",
        "trajectory t1-0: not decided yet",
    ):
        assert line in words
    assert "Hello" not in words


def test_rules_are_told_from_what_came_of_them(told):
    half = [Component(name=name, value=0.5, weight=1.0) for name in "ab"]
    told.close(0, 1.0, *half, feedback_ids=["x"], choice=0)
    told.close(0, 0.0, Component(name="a", reason="no_feedback", weight=1.0), choice=1)
    told.close(0, None, Component(name="a", reason="no_feedback", weight=1.0), choice=2)
    told.close(0, 0.5, *half, feedback_ids=["x"], choice=3)
    rules = [one.combined for one in explain.gather(told.log, TURN).revisions]
    assert rules == ["sum", "default", "nothing", "mean"]
    assert "reward 0, it seems by default" in told.words()


def test_a_preference_is_heard_by_the_answer_that_lost(told):
    told.say(
        "a", "joined", subject=EARLIER, kind="preference", metric="better", preferred_over=TURN
    )
    told.say("b", "invalid", subject=EARLIER, kind="preference", preferred_over="nonsense")
    assert [heard.record.feedback_id for heard in explain.gather(told.log, TURN).feedback] == [
        f"{EARLIER}!a"
    ]
    assert f"better over {TURN} for answer 0 by user: joined" in told.words()


def test_what_is_not_decided_says_so(told):
    assert "no trajectory yet" in told.words()
    assert "no feedback" in told.words()


@pytest.mark.parametrize("text", ["a\nb", "\x1b[2J", "\ud800", "[" * 5000, "\u202e"])
def test_a_text_does_the_terminal_no_harm(told, text):
    turn = ids.new_interaction(SESSION, BEGAN_MS)
    told.answer(turn, text)
    told.say("a", "joined", subject=turn, metric="a\x1bb", category="[" * 5000, kind="category")
    content = events.OutputContent(message="[" * 100_000)
    told.writer.write(
        topics.OUTPUTS,
        events.Output(interaction_id=turn, choice=1, event_time_ms=1, content=content),
    )
    words = told.words(turn)
    assert all(character.isprintable() or character == "\n" for character in words)
    words.encode()


def test_a_time_beyond_all_calendars_is_told(told):
    told.writer.write(
        topics.TRAJECTORIES,
        events.Trajectory(
            trajectory_id="t", interaction_id=TURN, event_time_ms=1, closed_log_time_ms=10**18
        ),
    )
    assert f"closed at {10**18} ms" in told.words()


def test_what_cannot_be_read_is_passed_over(told):
    producer = told.log.producer()
    for topic in ("prompts", "outputs", "feedback", "trajectories", "receipts"):
        for partition in range(3):
            producer.append(topic, b"\x00nothing", key=SESSION.encode(), partition=partition)
    assert "Rome." in told.words()


@pytest.mark.parametrize(
    "unknown",
    [SESSION, "chat", f"{TURN}!a", f"{SESSION}~0000000000000"],
    ids=["session", "without a tenant", "feedback", "interaction"],
)
def test_an_unknown_interaction_is_said_to_be(told, unknown):
    with pytest.raises(ValueError, match=r"no id|is on the log|begin with"):
        explain.gather(told.log, unknown)


def test_the_command_prints_words_or_json(told, capsys):
    for option in ([], ["--json"]):
        arguments = cli.parser().parse_args(["reward", "explain", TURN, *option])
        assert commands._explain(arguments, Common(), told.log) == 0
    words, _, document = capsys.readouterr().out.rpartition("\n{")
    assert words.startswith(TURN)
    assert json.loads("{" + document)["interaction_id"] == TURN
    msgspec.json.decode("{" + document, type=explain.Explanation)


def test_try_is_handed_to_the_rewards_process(monkeypatch):
    handed = []
    monkeypatch.setattr(cli, "run_in_checkout", lambda *a, **k: handed.append((a, k)) or 0)
    argv = ["reward", "try", "spec.toml", "--since", "-1h", "--until", "5m", "--json"]
    arguments: argparse.Namespace = cli.parser().parse_args(cli._moments(argv))
    assert commands.run(arguments, Common(kafka="b:1", prefix="p.")) == 0
    ((module, given), options) = handed[0]
    assert (module, options) == ("services.rewards.trial", {"name": "reward try"})
    assert given == [
        "spec.toml",
        "--since",
        "1h",
        "--until",
        "5m",
        "--kafka",
        "b:1",
        "--prefix",
        "p.",
        "--json",
    ]
