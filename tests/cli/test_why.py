"""``tailrace why``: an interaction from prompt to weights, a version back to what moved it."""

from __future__ import annotations

import json

import msgspec
import pytest

from tailrace import cli, events, topics, why
from tailrace.log import kafka
from tailrace.settings import Common
from tailrace.why.words import in_words
from tests.cli.river import SESSION, River


def test_from_the_prompt_to_the_weights(flowing: River) -> None:
    good, _ = flowing.turns()
    found = flowing.turn(good)
    assert found.asked is not None
    assert (found.asked.session, found.asked.user, found.asked.tokens) == (SESSION, "u1", 2)
    assert found.asked.messages == [{"role": "user", "content": "What is the capital of Italy?"}]
    (answer,) = found.answers
    assert answer.versions == [0, 1] and answer.message["content"] == "Rome."
    assert [(t.id, t.logprob, t.version) for t in answer.tokens] == [
        (5, -0.5, 0),
        (6, -1.0, 0),
        (7, -1.5, 1),
    ]
    (heard,) = found.feedback
    assert heard.fate is not None and heard.fate.outcome == "joined"
    (revision,) = found.revisions
    assert revision.reward == 1.0
    assert heard.fate.trajectories == [revision.trajectory_id]
    (decision,) = found.decisions
    assert (decision.fate.outcome, decision.fate.version) == ("trained", 1)
    assert decision.trained is not None and decision.into is not None
    assert (decision.trained.where.topic, decision.trained.where.offset) == ("steps", 0)
    assert (decision.trained.place, decision.trained.answers) == (0, 2)
    assert decision.trained.advantage == why.Advantage(value=1.0, basis="step")
    assert (decision.into.version, decision.into.withdrawn) == (1, False)
    one, two = decision.serving
    assert (one.engine, one.serves, one.pause_ms, one.now.version) == ("one", True, 200.0, 2)
    assert one.since_ms is not None and one.since_ms > heard.time_ms
    assert (two.since_ms, two.refused, two.serves) == (None, "canary: differs", False)
    assert (found.expired, found.also, found.feedback_id) == ([], [], None)


def test_a_feedback_is_marked_in_its_chain(flowing: River) -> None:
    _, bad = flowing.turns()
    found = flowing.turn(f"{bad}!b")
    assert (found.interaction_id, found.feedback_id) == (bad, f"{bad}!b")
    (decision,) = found.decisions
    assert decision.trained is not None and decision.trained.advantage is not None
    assert decision.trained.advantage.value == -1.0


def test_a_feedback_about_a_session_leads_to_what_it_was_credited_to(river: River) -> None:
    river.train(0)
    first, second = river.ask("a", "b"), river.ask("c", "d")
    said = river.say(SESSION, "s", True, metric="solved")
    before = river.turn(said)
    assert (before.interaction_id, before.also, before.revisions) == (second, [], [])
    river.settle()
    found = river.turn(said)
    assert (found.interaction_id, found.also, found.feedback_id) == (second, [first], said)
    assert [heard.record.feedback_id for heard in found.feedback] == [said]
    assert found.revisions[0].feedback_ids == [said]


def test_a_correction_is_the_next_revision_and_its_advantage_the_difference(river: River) -> None:
    river.train(0)
    turned = river.ask("a", "b")
    river.say(turned, "a", True)
    river.settle()
    river.train(1, 0)
    river.say(turned, "b", False, replaces=f"{turned}!a")
    river.settle()
    river.train(2, 1, before=1.0)
    found = river.turn(turned)
    assert [one.reward for one in found.revisions] == [1.0, -1.0]
    first, second = (decision.trained for decision in found.decisions)
    assert first is not None and second is not None
    assert second.advantage == why.Advantage(value=-2.0, basis="revision")
    assert [decision.fate.version for decision in found.decisions] == [1, 2]


def test_after_a_rollback_a_record_is_decided_on_both_branches(river: River) -> None:
    river.train(0)
    turned = river.ask("a", "b")
    river.say(turned, "a", True)
    river.settle()
    river.train(1, 0)
    release = {"mode": "follow", "live": 0, "withdrawn_to": 1, "data": "retrain"}
    record = events.Release(model=river.common.model, event_time_ms=1, **release)
    river.writer.write(topics.RELEASES, record)
    river.train(2, 0)
    found = river.turn(turned)
    kinds = [(d.into and d.into.version, d.into and d.into.withdrawn) for d in found.decisions]
    assert kinds == [(1, True), (2, False)]
    assert all(decision.trained is not None for decision in found.decisions)
    (base,) = river.weights(2).ancestors
    assert (base.version, base.children) == (0, [1, 2])


def test_what_has_expired_is_said(flowing: River) -> None:
    good, bad = flowing.turns()
    flowing.log.delete_before("trajectories", {0: 1})
    assert [mover.interaction_id for mover in flowing.weights(1).movers] == [None, bad]
    for topic in ("prompts", "outputs"):
        flowing.log.delete_before(topic, {0: 1})
    with pytest.raises(ValueError, match="is on the log; of its time nothing is kept of prompts"):
        flowing.turn(good)
    found = flowing.turn(bad)
    assert found.asked is not None and len(found.decisions) == 1


def test_what_is_not_there_is_an_error(flowing: River) -> None:
    good, _ = flowing.turns()
    for subject, said in (
        (f"{SESSION}~0000000000000", "is on the log"),
        (f"{SESSION}~0000000000000!x", "is on the log"),
        (f"{SESSION}!x", "no feedback"),
        (f"{good}!zzz", "no feedback .* only its interaction"),
        (SESSION, "none of these"),
        ("7", "no version 7 of tiny: the newest is 2"),
        ("-7", "none of these"),
        ("chat~1", "malformed turn"),
        ("", "none of these"),
        ("a!b!c", "is no feedback id"),
        ("\x1b[2J~\ud800", "malformed turn"),
        ("9" * 30, "none of these"),
    ):
        with pytest.raises(ValueError, match=said) as caught:
            why.gather(flowing.log, flowing.common, subject, now_ms=flowing.now_ms)
        assert str(caught.value).isprintable()


def test_the_command_prints_words_or_json(
    flowing: River,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: object,
) -> None:
    monkeypatch.setattr(kafka, "KafkaLog", lambda bootstrap: flowing.log)
    monkeypatch.chdir(str(tmp_path))
    good, _ = flowing.turns()
    where = ("--model", flowing.common.model)
    assert cli.main(["why", f"{good}!a", *where]) == 0
    words = capsys.readouterr().out
    for line in (
        "asked: What is the capital of Italy?",
        "answer 0 (stop, version 0, 1) by one, 1.2 s",
        "tokens 0 to 1 by version 0, mean logprob -0.75",
        "tokens 2 to 2 by version 1, mean logprob -1.5",
        "> 2026-",
        "thumbs True for answer 0 by user: joined",
        "reward 1, which is the mean of",
        "trained, version 1",
        "step 1 (steps/0/0), answer 1 of 2, by reinforce, weight 1, age 1",
        "reward 1, advantage +1 (reward less the mean of its step)",
        "version 1: delta of 0",
        "engine two: refused it (canary: differs)",
    ):
        assert line in words, words
    assert cli.main(["why", "1", *where]) == 0
    words = capsys.readouterr().out
    for line in (
        "version 1 of tiny\n",
        "comes from 0",
        "led to 2",
        "decided: trained 2; trained by reinforce 2",
        f"advantage +1 (reward less the mean of its step), reward 1, by reinforce: {good}",
    ):
        assert line in words, words
    for subject, kind in ((good, "interaction"), ("1", "version")):
        assert cli.main(["why", subject, "--json", *where]) == 0
        document = capsys.readouterr().out
        assert json.loads(document)["kind"] == kind
        msgspec.json.decode(document, type=why.Turn | why.Weights)
    assert cli.main(["why", "77", *where]) == 1
    assert "tailrace why: no version 77" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["\ud800", "[" * 50_000, "x" * 100_000, "\x1b[2J<b>\u202e", "[]"])
def test_any_text_can_be_shown_and_sent(river: River, text: str) -> None:
    river.train(0)
    content = events.OutputContent(message=text, token_ids=b"\x01", logprobs=b"\x01")
    turned = river.ask(text, "b", content=None if text == "\ud800" else content)
    river.say(turned, "a", True, metric="[\x1b", content=events.FeedbackContent(text="\x07"))
    found = river.turn(turned)
    msgspec.json.encode(found)
    assert all(line.isprintable() for line in in_words(found))
    assert [answer.tokens for answer in found.answers] == [[]]


def test_foreign_bytes_and_other_models_are_passed_over(flowing: River) -> None:
    good, _ = flowing.turns()
    producer = flowing.log.producer()
    for topic in topics.TOPICS:
        if topic.record is not None:
            producer.append(topic.name, b"\x00nothing", key=SESSION.encode(), partition=0)
            producer.append(topic.name, b"\x00nothing", key=b"tiny", partition=0)
    assert len(flowing.turn(good).decisions) == 1
    assert len(flowing.weights(1).movers) == 2
    assert flowing.turn(good, Common(model="another")).decisions == []
