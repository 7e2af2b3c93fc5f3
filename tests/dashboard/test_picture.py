"""The sections of the picture, from a hand-written past."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from services.dashboard import masking, recent
from services.dashboard.delay import Delay
from services.dashboard.picture import FIELDS, SECTIONS
from services.dashboard.settings import Settings
from tailrace import events, topics
from tailrace.estimates import wilson
from tailrace.stream import Writer
from tailrace.wire import Wire
from tests.dashboard.life import MODEL, Life, picture, reader_of


def test_every_figure_says_what_it_means() -> None:
    assert {path.partition(".")[0] for path in FIELDS} == set(SECTIONS)
    assert "Wilson" in FIELDS["reward.by_version.share_low"]
    assert all(len(text) > 3 and text.endswith((".", ":", ")")) for text in FIELDS.values())
    found = picture(reader_of(Life()))
    assert set(found) == set(SECTIONS)
    told = {path for path in FIELDS if path.count(".") == 1}
    assert {f"{name}.{field}" for name in found for field in found[name]} == told


def test_one_answer_goes_all_the_way() -> None:
    life = Life()
    for version in (1, 2, 3):
        life.learn(-1.0 if version == 2 else 1.0, version)
    found = picture(reader_of(life))
    assert found["reward"]["now"]["share"] == pytest.approx(2 / 3, abs=1e-3)
    assert [row["version"] for row in found["reward"]["by_version"]] == [0, 1, 2]
    low, high = wilson(2, 3)
    assert found["reward"]["now"]["share_low"] == pytest.approx(low, abs=1e-3)
    assert found["latency"]["p50_s"] == 3.0
    assert [stage["p95_s"] for stage in found["latency"]["stages"]] == [1.0, 1.0, 1.0]
    last = found["versions"]["timeline"][-1]
    assert last["objectives"] == {"reinforce": 1} and last["sources"] == {"user": 1}
    assert last["engines"][0]["pause_ms"] == 30.0 and last["serving"] == ["e0"]
    assert (found["versions"]["head"], found["versions"]["served"]) == (3, 3)
    assert found["training"]["points"][-1]["staleness"] == 1.0
    assert found["account"]["balanced"]
    assert {row["consumer"]: row["records"] for row in found["lag"]["consumers"]} == {
        "trainer": 0,
        "e0": 0,
    }
    assert [row["name"] for row in found["processes"]["writers"]] == ["gateway"]
    assert found["traffic"]["caught_up"] and found["traffic"]["behind"] == 0


def test_names_that_anybody_may_write_are_not_too_many() -> None:
    life = Life()
    inputs = {}
    for number in range(30):
        turn = life.ask()
        said, vote = life.say(turn, source=f"source {number}")
        life.receipt(vote, said, f"outcome {number}")
        name, at = life.reward(turn, 1.0, [said])
        inputs[name] = at
    life.step(1, inputs)
    for number in range(30):
        some = [events.StepInput(trajectory_id="t", objective="o" * 1000 + str(number))]
        some.append(events.StepInput(trajectory_id="t", objective=f"objective {number}"))
        step = events.Step(
            model=MODEL, step=2, version=1, event_time_ms=life.now_ms, inputs=some, figures={}
        )
        life.writer.write(topics.STEPS, step)
    life.version(1, 0)
    found = picture(reader_of(life))
    made = found["versions"]["timeline"][1]
    assert made["sources"] == {"other": 30, "unknown": 60}
    assert sum(made["objectives"].values()) == 90 and len(made["objectives"]) <= 21
    outcomes = found["account"]["lines"][1]["outcomes"]
    assert sum(outcomes.values()) == 30 and outcomes["other"] == 10
    assert found["account"]["balanced"] and max(map(len, made["objectives"])) <= 60


def test_a_correction_takes_the_place_of_what_it_corrects() -> None:
    life = Life()
    turn = life.ask()
    first, _ = life.reward(turn, -1.0)
    life.reward(turn, 1.0, revision=1, supersedes=first, trajectory_id="second")
    now = picture(reader_of(life))["reward"]["now"]
    assert (now["answers"], now["satisfied"], now["reward"]) == (1, 1, 1.0)


def test_rewards_that_are_no_numbers_are_dropped_and_counted() -> None:
    life = Life()
    for reward in (float("nan"), float("inf"), 1e300, 1.0, None):
        life.now_ms += 1
        life.reward(life.ask(), reward)
    found = picture(reader_of(life))
    assert (found["reward"]["now"]["answers"], found["reward"]["unrewarded"]) == (1, 1)
    drops = {row["reason"]: row["count"] for row in found["traffic"]["drops"]}
    assert drops["reward is no number"] == 3


def test_a_rolled_back_version_is_withdrawn() -> None:
    life = Life()
    life.learn(1.0, 1)
    back = events.Release(model=Settings().model, event_time_ms=1, live=0, withdrawn_to=1)
    life.writer.write(topics.RELEASES, back)
    found = picture(reader_of(life))
    assert [row["withdrawn"] for row in found["versions"]["timeline"]] == [False, True]
    assert (found["versions"]["head"], found["versions"]["trained"]) == (0, 0)
    assert found["account"]["lines"][2]["in_flight"] == 1
    (engine,) = [row for row in found["lag"]["consumers"] if row["consumer"] == "e0"]
    assert engine["records"] == 0


def test_feedback_of_what_nobody_serves_has_no_way() -> None:
    life = Life()
    for version, changes in ((1, {}), (1, {"model": "another"})):
        turn = life.ask()
        said, vote = life.say(turn)
        name, made = life.reward(turn, 1.0, [said])
        life.receipt(vote, said, "joined", trajectories=[name])
        life.receipt(made, name, "trained", version=version, **changes)
    life.version(1, 0)
    reader = reader_of(life)
    back = events.Release(model=MODEL, event_time_ms=1, live=0, withdrawn_to=1)
    life.writer.write(topics.RELEASES, back)
    life.version(2, 0)
    life.ack(2)
    late = life.ask()
    said, vote = life.say(late)
    name, made = life.reward(late, 1.0, [said])
    life.receipt(vote, said, "joined", trajectories=[name])
    life.receipt(made, name, "trained", version=1)
    reader.catch_up()
    found = picture(reader)
    assert found["latency"]["samples"] == 0
    outcomes = [one.outcome for one in reader.board.recent.search(recent.Query()).found]
    assert sorted(outcomes, key=str) == [None, "trained", "trained"]
    drops = {row["reason"]: row["count"] for row in found["traffic"]["drops"]}
    assert drops == {"version rolled back: the way of its feedback is not measured": 1}


def test_feedback_beyond_what_is_kept_for_a_version_is_counted() -> None:
    drops: Counter[str] = Counter()
    delay = Delay(Settings(), drops)
    for offset in range(2003):
        source = events.Coordinates(topic="feedback", partition=0, offset=offset)
        receipt = events.Receipt(
            source=source,
            subject_id="f",
            event_time_ms=1,
            stage="rewards",
            outcome="joined",
            trajectories=["t"],
        )
        delay.feedback((0, offset), 1)
        delay.receipt(receipt, 1)
    trained = msgspec.structs.replace(
        receipt, subject_id="t", stage="trainer", outcome="trained", version=1
    )
    delay.receipt(trained, 2)
    assert drops == {"version with much feedback: the way of some is not measured": 3}


def test_alarms_are_open_until_they_clear() -> None:
    life = Life()
    for stream, state in (("reward", "fired"), ("length", "fired"), ("reward", "cleared")):
        alarm = events.Alarm(stream=stream, event_time_ms=1, detector="adwin", state=state)
        life.writer.write(topics.ALARMS, alarm)
    alarms = picture(reader_of(life))["alarms"]
    assert [row["stream"] for row in alarms["open"]] == ["length"]
    assert len(alarms["recent"]) == 3 and alarms["fired"] == 2


def test_an_engine_that_is_silent_may_be_gone() -> None:
    life = Life()
    life.ack(0)
    life.now_ms += 61_000
    (engine,) = picture(reader_of(life))["engines"]["engines"]
    assert engine["stale"]
    life.ack(0, "serving")
    (engine,) = picture(reader_of(life))["engines"]["engines"]
    assert not engine["stale"] and engine["state"] == "serving"


def test_many_that_are_gone_do_not_hide_those_that_are_here() -> None:
    life = Life()
    for number in range(50):
        life.now_ms += 1
        life.ack(0, engine=f"old {number}")
        writer = Writer(life.producer, Wire(), source=f"old {number}")
        alarm = events.Alarm(stream="s", event_time_ms=1)
        writer.write(topics.ALARMS, alarm)
        life.say(life.ask(), source="grader", grader=f"old {number}")
    reader = reader_of(life)
    life.now_ms += 3_600_001
    life.ack(0, engine="new")
    Writer(life.producer, Wire(), source="new").write(topics.ALARMS, alarm)
    life.say(life.ask(), source="grader", grader="new")
    reader.catch_up()
    found = picture(reader)
    (version,) = found["versions"]["timeline"]
    assert version["serving"] == ["new"] and len(version["engines"]) == 32
    assert version["engines"][-1]["engine"] == "new"
    assert [row["consumer"] for row in found["lag"]["consumers"]] == ["new"]
    assert {"new", "gateway"} <= {row["name"] for row in found["processes"]["writers"]}
    assert len(found["processes"]["writers"]) == 40
    assert "new" in reader.board.graders() and len(reader.board.graders()) == 20


def test_searching() -> None:
    life = Life()
    tall = life.learn(1.0, 1, text="How TALL is it?", user="u1", tags={"team": "red"})
    wide = life.learn(-1.0, 2, session="default:t", text="how wide?")
    board = reader_of(life).board

    def found(**query: object) -> list[str]:
        results = board.recent.search(recent.Query(**query))  # type: ignore[arg-type]
        return [one.interaction_id for one in results.found]

    assert found() == [wide, tall]
    assert found(text="tall") == [wide, tall]  # the answers say so too
    assert found(text="how wide") == [wide]
    assert found(user="u1") == found(tag="team") == found(tag="team=red") == [tall]
    assert found(tag="team=blue") == found(user="u2") == []
    assert found(session="t") == found(session="default:t") == [wide]
    assert found(since_ms=life.now_ms) == []
    first = board.recent.search(recent.Query(limit=1))
    assert first.more and first.found[0].outcome == "trained" and first.found[0].reward == -1.0


def test_excerpts() -> None:
    assert recent.excerpt('{"role": "assistant", "content": null}', 5) == '{"rol'
    assert recent.excerpt('{"content": "\\ud800"}', 5) == "?"
    assert recent.excerpt("[" * 100_000, 5) == "[[[[["
    assert recent.excerpt("[]", 5) == "[]"


def test_masking_leaves_ids_and_numbers() -> None:
    document = {
        "interaction_id": "default:s~1",
        "answers": [{"message": {"content": "secret"}, "tokens": [{"id": 5, "logprob": -1.0}]}],
        "feedback": [{"record": {"content": {"text": "secret"}, "boolean": True}}],
        "headers": {"tailrace-detail": "secret", "ce_id": "x"},
        "invalid": {"reason": "undecodable", "detail": "secret"},
    }
    found = masking.masked(document)
    assert "secret" not in str(found) and "'id': 5" not in str(found)
    assert found["answers"][0]["tokens"] == [{"id": None, "logprob": -1.0}]
    assert found["feedback"][0]["record"]["boolean"] and found["headers"]["ce_id"] == "x"
