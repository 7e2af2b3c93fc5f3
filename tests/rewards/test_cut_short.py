"""An answer that was evicted while it was waited for says nothing about silence."""

from __future__ import annotations

from hypothesis import example, given, settings
from msgspec.structs import replace

from services.rewards.emission import kind_of
from services.rewards.spec import Spec
from services.rewards.terms import Implicit, Metric
from tailrace import events, ids
from tests.rewards.history import read_in_order
from tests.rewards.test_join import Story
from tests.rewards.test_join_properties import SPECS, make, seeds, specs
from tests.rewards.test_window import SMALL, crowd

DEFAULT = replace(SMALL, default_reward=0.25)


def closed(story: Story, spec: Spec, session: str = "default:s") -> list[events.Trajectory]:
    """The trajectories of a session, once all is over."""
    story.run(2)
    story.wait(130)
    story.run(3)
    revisions = read_in_order(story, spec).result.revisions()
    return [one for one in revisions if one.interaction_id.startswith(f"{session}~")]


def reasons(one: events.Trajectory) -> dict[str, tuple[float | None, str | None]]:
    return {term.name: (term.value, term.reason) for term in one.components}


def test_a_wait_that_was_cut_short_has_no_default_reward() -> None:
    story = Story()
    story.turn()
    crowd(story)
    (one,) = closed(story, DEFAULT)
    assert one.reward is None
    assert set(reasons(one).values()) == {(None, "cut_short")}
    assert kind_of(one) == "cut_short"


def test_an_answer_whose_wait_was_over_is_silent_though_it_is_evicted() -> None:
    story = Story()
    story.turn()
    story.wait(61)
    story.run(3)
    crowd(story)
    (one,) = closed(story, DEFAULT)
    assert (one.reward, kind_of(one)) == (0.25, "first")
    assert set(reasons(one).values()) == {(None, "no_feedback")}


def test_what_was_said_counts_and_the_others_were_still_waited_for() -> None:
    story = Story()
    story.feedback(story.turn(), "a")
    crowd(story)
    (one,) = closed(story, DEFAULT)
    assert (one.reward, kind_of(one)) == (1.0, "cut_short")
    assert reasons(one) == {"thumbs": (1.0, "cut_short"), "better": (None, "cut_short")}


def test_a_final_signal_ended_the_wait() -> None:
    spec = replace(DEFAULT, metrics={"thumbs": Metric(text=None, final=True), "better": Metric()})
    story = Story()
    story.feedback(
        story.turn(),
        "a",
        kind="comment",
        boolean=None,
        content=events.FeedbackContent(text="no opinion"),
    )
    crowd(story)
    (one,) = closed(story, spec)
    assert (one.reward, kind_of(one)) == (0.25, "first")
    assert reasons(one) == {"thumbs": (None, "no_value"), "better": (None, "no_feedback")}


def test_a_word_that_came_late_is_no_silence_either() -> None:
    spec = replace(DEFAULT, metrics={"thumbs": Metric(wait_s=1)})
    story = Story()
    turn = story.turn()
    story.wait(2)
    said = story.feedback(turn, "a")
    crowd(story, 8)
    (one,) = closed(story, spec)
    assert (one.reward, reasons(one)) == (None, {"thumbs": (None, "cut_short")})
    assert read_in_order(story, spec).result.outcomes()[said] == "late"


def test_each_term_has_its_own_wait() -> None:
    spec = replace(
        DEFAULT,
        metrics={"thumbs": Metric(wait_s=1), "better": Metric()},
        implicit={"next_turn": Implicit(wait_s=1, unseen=0.5), "retry": Implicit(unseen=0.0)},
    )
    story = Story()
    story.turn()
    story.run(4)
    crowd(story)
    (one,) = closed(story, spec)
    assert one.reward == 0.5
    assert reasons(one) == {
        "thumbs": (None, "no_feedback"),
        "better": (None, "cut_short"),
        "next_turn": (0.5, None),
        "retry": (None, "cut_short"),
    }
    (one,) = closed(story, replace(spec, implicit={"retry": Implicit(unseen=0.0)}))
    assert one.reward is None


@settings(max_examples=100, deadline=None)
@example(spec=SPECS[0], seed=3_378_265_380)  # a correction at a tick whose clock was behind
@given(spec=specs, seed=seeds)
def test_only_who_waited_to_the_end_has_the_default_reward(spec: Spec, seed: int) -> None:
    spec = replace(spec, default_reward=0.123)
    history = make(seed, 60)
    ended = {
        ids.session_of(item.event.feedback_id)
        for item in history.logs["feedback"]
        if item is not None
        and isinstance(item.event, events.Feedback)
        and (metric := spec.metrics.get(item.event.metric or "")) is not None
        and metric.final
    }
    waited_ms: dict[tuple[str, int], int] = {}
    for one in read_in_order(history, spec).result.revisions():
        assert one.closed_log_time_ms is not None and one.output_log_time_ms is not None
        # A correction bears the time of its tick, which may be before: clocks are off in these.
        waited_ms.setdefault(
            (one.interaction_id, one.choice), one.closed_log_time_ms - one.output_log_time_ms
        )
        if one.reward == 0.123 and ids.session_of(one.interaction_id) not in ended:
            assert waited_ms[one.interaction_id, one.choice] >= spec.longest_wait_ms


def test_histories_cut_waits_short() -> None:
    spec = replace(SPECS[0], default_reward=0.123, max_records=3)
    found = [
        kind_of(one)
        for seed in range(10)
        for one in read_in_order(make(seed, 60), spec).result.revisions()
    ]
    assert {"first", "cut_short"} <= set(found)
