"""What would outgrow a record goes in parts, goes without something, or does not come in."""

from __future__ import annotations

from typing import Any

import pytest

from services.rewards import facts
from services.rewards.emission import Send, trajectory
from services.rewards.facts import Closing, FeedbackFact, Kept
from services.rewards.join import Join
from tailrace import events
from tailrace.topics import MAX_RECORD_BYTES
from tailrace.wire import Wire
from tests.rewards.history import History, interaction_of, read_in_order
from tests.rewards.test_join import SPEC, Story

INTERACTION = interaction_of("default:s", 0, 1)
BIG = "x" * (MAX_RECORD_BYTES - 4096)
"""As much as one field of an input record may hold."""


def sent(asked: dict[str, Any], answered: dict[str, Any], said: int = 0) -> events.Trajectory:
    """The trajectory of these, which fits a record."""
    prompt = events.Prompt(
        interaction_id=INTERACTION, session_id="default:s", event_time_ms=0, learn=True, **asked
    )
    output = events.Output(interaction_id=INTERACTION, event_time_ms=0, **answered)
    feedback = [
        FeedbackFact(offset=n, time_ms=n, feedback_id=f"{INTERACTION}!{n:0>100}")
        for n in range(said)
    ]
    closing = Closing(interaction_id=INTERACTION, trajectory_id="t")
    made = trajectory(0, closing, Kept(0, prompt), Kept(0, output), feedback, 0)
    assert isinstance(made, Send) and isinstance(made.record, events.Trajectory)
    assert len(Wire().encode(made.record)) < MAX_RECORD_BYTES - 32 * 1024  # headers, key
    return made.record


def test_without_content() -> None:
    half = b"\0" * (5 * 1024 * 1024)
    one = sent(
        {"content": events.PromptContent(prompt_token_ids=half), "tags": {"a": "b"}},
        {"content": events.OutputContent(token_ids=half)},
    )
    assert (one.content, one.untrainable, one.tags) == (None, "too_large", {"a": "b"})


def test_what_fits_is_whole() -> None:
    content = events.OutputContent(token_ids=b"\0" * (MAX_RECORD_BYTES - 100_000))
    one = sent({"tags": {"a": "b"}}, {"content": content}, said=10)
    assert one.content is not None and one.content.token_ids == content.token_ids
    assert (one.untrainable, one.tags, len(one.feedback_ids)) == (None, {"a": "b"}, 10)


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ({"tags": {"a": BIG}}, {"content": events.OutputContent(message=BIG)}),
        ({"user": BIG}, {"error": BIG}),
        ({"sampling": {"stop": BIG}}, {"finish_reason": BIG}),
        ({"principal": BIG}, {"untrainable": BIG}),
        ({"route": events.Route(channel=BIG)}, {"engine": BIG}),
        ({"task": BIG[:4_190_000], "group_id": BIG[:4_190_000]}, {"error": "timeout"}),
        ({"model": BIG}, {"weight_versions": [events.VersionSpan(version=1)] * 2_000_000}),
    ],
)
def test_no_field_can_outgrow_a_record(asked: dict[str, Any], answered: dict[str, Any]) -> None:
    one = sent(asked, answered)
    assert (one.untrainable, one.trajectory_id) == ("too_large", "t")
    assert one.tags["tailrace-dropped"]


def test_feedback_ids_are_capped_and_counted() -> None:
    one = sent({"user": "u", "tags": {"a": "b"}}, {}, said=70_000)
    assert 0 < len(one.feedback_ids) < 70_000
    assert one.tags == {"tailrace-dropped": "tags feedback_ids=70000"}
    assert (one.user, one.untrainable) == ("u", "too_large")
    assert (one.first_feedback_log_time_ms, one.last_feedback_log_time_ms) == (0, 69_999)


def test_a_demonstration_goes_with_the_content_and_many_preferences_go() -> None:
    feedback = [
        FeedbackFact(
            offset=n,
            time_ms=n,
            feedback_id=f"{INTERACTION}!{n}",
            interaction_id=INTERACTION,
            kind="preference",
            preferred_over=(interaction_of("default:" + "s" * 128, 0, n), 0),
        )
        for n in range(60_000)
    ]
    asked = events.Prompt(interaction_id=INTERACTION, session_id="", event_time_ms=0, learn=True)
    answered = events.Output(interaction_id=INTERACTION, event_time_ms=0)
    closing = Closing(interaction_id=INTERACTION, trajectory_id="t")
    made = trajectory(0, closing, Kept(0, asked), Kept(0, answered), feedback, 0, BIG).record
    assert isinstance(made, events.Trajectory)
    assert (made.content, made.preferred_over, made.untrainable) == (None, [], "too_large")
    assert len(Wire().encode(made)) < MAX_RECORD_BYTES - 32 * 1024


def test_a_turn_that_the_store_has_no_room_for_is_a_dead_letter() -> None:
    history = History()
    interaction = interaction_of("default:s", history.now_ms, 1)
    history.prompt(interaction)
    spans = [events.VersionSpan(version=1)] * 1_000_000  # as kept, several times the record
    history.output(interaction, weight_versions=spans)
    reader = read_in_order(history, SPEC)
    assert reader.result.dead == {("outputs", 0, "too_large")}
    assert reader.join.counts["outputs", "too_large"] == 1


def test_a_verdict_outgrowing_a_part_is_stored_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "PART_BYTES", 40_000)
    story = Story()
    for number in range(600):
        story.feedback(story.turn(session=f"default:s{number}"), "a")
    story.run(10)
    reader = read_in_order(story, SPEC)
    parts = [v for key, v in reader.table.values.items() if b"/verdict/" in key]
    assert len(parts) > 3
    assert max(map(len, parts)) < 41_000
    assert len(reader.result.trajectories) == len(reader.result.outcomes()) == 600
    again = Join(SPEC, 0, 1, reader.table)
    positions = dict(reader.join.positions)
    again.restore(list(reader.table.values.items()), positions)
    assert not again.busy or not again.open_entries


def test_parts_are_bounded_by_bytes() -> None:
    closings = [Closing(interaction_id="i", inputs=list(range(2**32, 2**32 + 100_000)))] * 30
    parts = list(facts.in_parts(closings, []))
    assert [one for part, _ in parts for one in part] == closings
    assert max(len(facts.encode(part)) for part, _ in parts) < MAX_RECORD_BYTES
