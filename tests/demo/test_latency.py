"""From feedback to the first token under a version that was trained on it."""

from itertools import permutations

import pytest

from services.local.latency import FeedbackToServed, token_time_ms
from tailrace.events import Coordinates, Output, Prompt, Receipt, VersionSpan

TURN = "default:s~0000000000000"


def _output(
    *spans: tuple[int | None, int, int], ttft: float | None = 100, turn: str = TURN
) -> Output:
    return Output(
        interaction_id=turn,
        event_time_ms=0,
        weight_versions=[VersionSpan(version=v, start=a, end=b) for v, a, b in spans],
        ttft_ms=ttft,
        total_ms=1000,
    )


def test_tokens_are_spread_between_the_first_and_the_last() -> None:
    output = _output((1, 0, 5), (2, 5, 10))
    assert token_time_ms(5000, output, 0) == 5100
    assert token_time_ms(5000, output, 9) == 6000
    assert token_time_ms(5000, output, 3) == pytest.approx(5400)


def test_without_a_first_token_time_they_are_spread_over_all() -> None:
    output = _output((1, 0, 10), ttft=None)
    assert token_time_ms(0, output, 0) == 100
    assert token_time_ms(0, output, 9) == 1000


def test_an_answer_of_one_token_and_one_of_none() -> None:
    assert token_time_ms(0, _output((1, 0, 1)), 0) == 100
    assert token_time_ms(0, _output(), 0) is None


SOURCE = Coordinates(topic="feedback", partition=0, offset=3)
JOINED = Receipt(
    source=SOURCE,
    subject_id="f",
    event_time_ms=0,
    stage="rewards",
    outcome="joined",
    trajectories=["t"],
)
TRAINED = Receipt(subject_id="t", event_time_ms=0, stage="trainer", outcome="trained", version=4)
PROMPT = Prompt(interaction_id=TURN, session_id="default:s", event_time_ms=20_000)


def _feed(latency: FeedbackToServed, event: object) -> None:
    match event:
        case Receipt():
            latency.receipt(event)
        case Prompt():
            latency.prompt(event)
        case Output():
            latency.output(event)
        case _:
            latency.feedback(SOURCE, 15_000)


def test_any_order_gives_the_time_of_the_first_token_under_a_version_trained_on_it() -> None:
    for order in permutations(
        ("feedback", JOINED, TRAINED, PROMPT, _output((3, 0, 5), (5, 5, 10)))
    ):
        latency = FeedbackToServed()
        for event in order:
            _feed(latency, event)
        # Token 5 of 10 comes at 20 000 + 100 + 900 * 5 / 9; its version 5 is past the 4 wanted.
        assert latency.samples_s() == [pytest.approx(5.6)]


def test_older_and_unknown_versions_do_not_count() -> None:
    latency = FeedbackToServed()
    for event in ("feedback", JOINED, TRAINED, PROMPT, _output((3, 0, 5), (None, 5, 10))):
        _feed(latency, event)
    assert latency.samples_s() == []


def test_an_earlier_answer_under_a_later_version_wins() -> None:
    latency = FeedbackToServed()
    for event in ("feedback", JOINED, TRAINED, PROMPT, _output((4, 0, 10))):
        _feed(latency, event)
    other = "default:s~0000000000001"
    latency.prompt(Prompt(interaction_id=other, session_id="default:s", event_time_ms=19_000))
    latency.output(_output((6, 0, 10), turn=other))
    assert latency.samples_s() == [pytest.approx(4.1)]


def test_filtered_trajectories_make_no_sample() -> None:
    latency = FeedbackToServed()
    filtered = Receipt(
        subject_id="t", event_time_ms=0, stage="trainer", outcome="filtered", version=4
    )
    for event in ("feedback", JOINED, filtered, PROMPT, _output((4, 0, 10))):
        _feed(latency, event)
    assert latency.samples_s() == []
