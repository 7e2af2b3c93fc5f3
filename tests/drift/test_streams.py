"""services.drift.streams: which numbers a record gives, and which records give none."""

from __future__ import annotations

import math

import pytest

from services.drift.streams import STREAMS, usable, values
from tailrace import events, ids
from tailrace.packing import pack_ids, pack_logprobs

TURN = "default:s~01HF7YAT00000"


def output(**fields):
    content = events.OutputContent(
        token_ids=pack_ids([1, 2, 3]), logprobs=pack_logprobs([-1.0, -2.0, -3.0])
    )
    given = {"interaction_id": TURN, "event_time_ms": 1, "content": content}
    return events.Output(**(given | fields))


def trajectory(**fields):
    given = {"trajectory_id": "t", "interaction_id": TURN, "event_time_ms": 1}
    return events.Trajectory(**(given | fields))


def vote(up, **fields):
    given = {"feedback_id": f"{TURN}!1", "event_time_ms": 1, "kind": "boolean", "boolean": up}
    return events.Feedback(**(given | fields))


def test_an_answer_has_a_length_and_a_logprob():
    assert values(output()) == [("answer_length", math.log(4)), ("behaviour_logprob", -2.0)]


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (trajectory(reward=0.5), [("reward", 0.5)]),
        (trajectory(reward=1), [("reward", 1.0)]),
        (trajectory(reward=None), []),
        (trajectory(reward=0.5, revision=1, supersedes="t0"), []),
        (vote(False), [("thumbs_down", 1.0)]),
        (vote(True), [("thumbs_down", 0.0)]),
        (vote(None), []),
        (vote(False, action="retract"), []),
        (vote(False, source="grader"), []),
        (vote(None, kind="number", number=3.0), []),
        (output(error="engine gone"), []),
        (output(content=None), []),
        (output(content=events.OutputContent(token_ids=b"", logprobs=None)), []),
        (events.Prompt(interaction_id=TURN, session_id="default:s", event_time_ms=1), []),
    ],
)
def test_the_table(record, expected):
    assert values(record) == expected
    assert {stream for stream, _ in expected} <= set(STREAMS)


def test_rollouts_are_no_live_traffic():
    mine = f"{ids.rollouts_session('acme', '0123456789ab', 3)}~01HF7YAT00000"
    assert values(output(interaction_id=mine)) == []
    assert values(trajectory(interaction_id=mine, reward=0.5)) == []
    for name in ("rollouts", "rollouts.0123456789ab", "rollouts.3", "rollouts.0123456789ab.3x"):
        assert len(values(output(interaction_id=f"acme:{name}~01HF7YAT00000"))) == 2, name


def test_what_a_detector_can_take():
    assert [value for value in (0.0, -1e30, math.nan, -math.inf, 1e200) if usable(value)] == [
        0.0,
        -1e30,
    ]


def test_torn_bytes_are_refused():
    with pytest.raises(ValueError, match="multiple"):
        values(output(content=events.OutputContent(token_ids=b"abc")))
