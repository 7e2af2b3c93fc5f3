"""The figures at the end of a demo."""

import json
import math
from pathlib import Path

import pytest

from services.local import summary
from services.local.lines import Line
from services.local.picture import Picture
from tailrace.events import Coordinates, Feedback, Receipt
from tailrace.log.base import LogRecord
from tests.engine.room import Room


def test_two_proportions_agree_with_a_textbook_z() -> None:
    # z = (0.6 - 0.4) / sqrt(0.5 * 0.5 * (1/100 + 1/100)) = 2.8284; two-sided p 0.004678.
    assert summary.p_value(60, 100, 40, 100) == pytest.approx(0.0046777, rel=1e-4)
    assert summary.p_value(40, 100, 60, 100) == summary.p_value(60, 100, 40, 100)
    assert summary.p_value(50, 100, 50, 100) == 1.0
    assert summary.p_value(0, 100, 0, 100) == 1.0
    assert summary.p_value(0, 0, 1, 1) == 1.0


def _answers(picture: Picture, liked: list[bool]) -> None:
    for number, good in enumerate(liked):
        picture.user(Line(kind="answer", time_ms=number, asked_ms=number, liked=good))


def test_rewards_are_the_edges_of_the_run_in_the_order_of_asking() -> None:
    picture = Picture()
    _answers(picture, [False] * 90 + [True] * 10 + [False] * 50 + [True] * 80 + [False] * 20)
    picture.answers.reverse()
    found = summary.summary(picture, None, wall_s=1.0, taste="short")
    assert found["reward_before"]["mean"] == 0.1
    assert found["reward_after"]["mean"] == 0.8
    assert found["p_value"] < 1e-6
    assert found["interactions"] == 250


def test_short_runs_compare_their_halves() -> None:
    picture = Picture()
    _answers(picture, [False, False, True])
    found = summary.summary(picture, None, wall_s=1.0, taste="short")
    assert found["reward_before"]["interactions"] == found["reward_after"]["interactions"] == 1
    assert math.isfinite(found["p_value"])


def test_a_run_without_anything_has_a_summary_that_is_json() -> None:
    found = summary.summary(Picture(), None, wall_s=0.0, taste="short")
    assert json.loads(json.dumps(found)) == found
    nothing = {"mean": None, "low": 0.0, "high": 1.0, "interactions": 0}
    assert found["reward_before"] == found["reward_after"] == nothing
    assert set(found) >= {
        "reward_before",
        "reward_after",
        "p_value",
        "versions",
        "feedback",
        "feedback_to_served_s",
        "requests",
        "update_pause_ms",
        "update_bytes",
        "step_s",
        "wall_s",
    }
    assert summary.in_words(found)


def test_the_pause_is_of_updates_alone_not_of_the_swap_after_a_start(tmp_path: Path) -> None:
    room, picture = Room(tmp_path), Picture()
    room.trainer.keyframe(0)
    room.turns()
    for version in (1, 2):
        room.trainer.delta(version)
        room.turns()
    room.vllm.dead, room.child.code = True, -9
    room.turns(3, seconds=2.0)
    assert room.child.starts == 2 and room.serves(2, 2)
    acks = room.trainer.acks()
    assert [ack.version for ack in acks] == [0, 1, 2, 2]
    for offset, ack in enumerate(acks):
        picture.record(_record("model-acks", offset), ack)
    assert picture.pauses_ms == [ack.pause_ms for ack in acks[1:3]]
    found = summary.summary(picture, None, wall_s=0.0, taste="short")
    assert found["serving"] == 2
    assert found["update_pause_ms"]["max"] == round(max(picture.pauses_ms), 1)
    room.trainer.close()
    room.subscriber.close()


def _record(topic: str, offset: int) -> LogRecord:
    return LogRecord(
        topic=topic, partition=0, offset=offset, time_ms=5, key=None, value=b"", headers={}
    )


def test_a_vote_is_unaccounted_until_its_record_has_an_outcome() -> None:
    picture = Picture()
    name = "default:s!f"
    picture.user(Line(kind="vote", time_ms=1, feedback_id=name))

    def unaccounted() -> int:
        found = summary.summary(picture, None, wall_s=0.0, taste="short")
        assert found["feedback"]["sent"] == 1
        return int(found["feedback"]["unaccounted"])

    assert unaccounted() == 1
    record = LogRecord(
        topic="feedback", partition=1, offset=7, time_ms=5, key=None, value=b"", headers={}
    )
    picture.record(record, Feedback(feedback_id=name, session_id="default:s", event_time_ms=1))
    assert unaccounted() == 1
    receipt = Receipt(
        source=Coordinates(topic="feedback", partition=1, offset=7),
        subject_id=name,
        event_time_ms=1,
        stage="rewards",
        outcome="joined",
    )
    picture.record(record, receipt)
    assert unaccounted() == 0
    assert picture.outcomes() == {"joined": 1}
