"""A wait window for each metric: nobody waits longer for one than it says."""

from __future__ import annotations

from msgspec.structs import replace
import pytest

from services.rewards.spec import Spec
from services.rewards.terms import Metric
from tests.rewards.history import Reader, read_in_order
from tests.rewards.test_join import Story, rewards

WAITS = Spec(
    wait_s=3,
    orphan_s=20,
    horizon_s=3600,
    metrics={"thumbs": Metric(wait_s=5), "judge": Metric(wait_s=2)},
)
GRADE = {"kind": "number", "metric": "judge", "boolean": None, "number": 0.5}


def reasons(story: Story, spec: Spec = WAITS) -> list[tuple[int, float | None, list[str | None]]]:
    story.run(30)
    revisions = read_in_order(story, spec).result.revisions()
    return [(t.revision, t.reward, [c.reason for c in t.components]) for t in revisions]


def test_a_slow_grader_costs_its_own_wait_and_is_missed_by_name() -> None:
    story = Story()
    story.feedback(story.turn(), "a")
    assert reasons(story, replace(WAITS, metrics=WAITS.metrics | {"thumbs": Metric(wait_s=0)})) == [
        (0, 1.0, [None, "no_feedback"])
    ]
    (one,) = read_in_order(
        story, replace(WAITS, metrics={"judge": Metric(wait_s=2)})
    ).result.revisions()
    assert one.closed_log_time_ms - one.output_log_time_ms == 2000  # type: ignore[operator]


def test_feedback_behind_its_own_window_is_late() -> None:
    story = Story()
    interaction = story.turn()
    story.feedback(interaction, "a")
    story.wait(2.5)
    late = story.feedback(interaction, "b", **GRADE)
    assert reasons(story) == [(0, 1.0, [None, "late"]), (1, 0.75, [None, None])]
    dropped = replace(WAITS, late="drop")
    assert reasons(story, dropped) == [(0, 1.0, [None, "late"])]
    outcomes = [read_in_order(story, spec).result.outcomes()[late] for spec in (WAITS, dropped)]
    assert outcomes == ["corrected", "late"]


def test_with_no_wait_every_word_is_a_correction() -> None:
    story = Story()
    interaction = story.turn()
    story.wait(1)
    story.feedback(interaction, "a")
    spec = Spec(wait_s=9, orphan_s=20, horizon_s=3600, metrics={"thumbs": Metric(wait_s=0)})
    assert [(r, value) for r, value, _ in reasons(story, spec)] == [(0, None), (1, 1.0)]


def test_a_metric_the_spec_does_not_know_has_the_spec_s_wait() -> None:
    story = Story()
    interaction = story.turn()
    story.wait(3)
    inside = story.feedback(interaction, "a", metric="mood")
    story.wait(0.5)
    outside = story.feedback(interaction, "b", metric="mood")
    outcomes = story.end(WAITS).outcomes()
    assert outcomes == {inside: "joined", outside: "corrected"}


@pytest.mark.parametrize(("late", "outcome"), [("correct", "replaced"), ("drop", "joined")])
def test_a_replacement_counts_by_its_own_window(late: str, outcome: str) -> None:
    story = Story()
    interaction = story.turn()
    story.wait(1.5)
    first = story.feedback(interaction, "a", **GRADE)
    story.wait(1)
    story.feedback(interaction, "b", replaces=f"{interaction}!a", **GRADE | {"number": 1.0})
    result = story.end(replace(WAITS, late=late))
    if late == "drop":
        assert rewards(result) == [(0, 0.5)]
        assert result.outcomes()[first] == outcome
    else:
        assert rewards(result) == [(0, 0.5), (1, 1.0)]


def test_a_final_signal_behind_its_window_closes_nothing() -> None:
    story = Story()
    interaction = story.turn()
    story.wait(3)
    story.feedback(interaction, "a", metric="done")
    metrics = WAITS.metrics | {"done": Metric(final=True, wait_s=1)}
    (first, *_) = story.end(replace(WAITS, metrics=metrics)).revisions()
    assert first.closed_log_time_ms - first.output_log_time_ms == 5000  # type: ignore[operator]


def test_a_revision_judges_as_the_first_closing_did_under_another_spec_too() -> None:
    story = Story()
    interaction = story.turn()
    story.wait(2.5)
    story.feedback(interaction, "a", **GRADE)
    story.run(4)
    reader = Reader(story, WAITS)
    for kind in ("prompts", "outputs", "feedback", "ticks", "ticks", "ticks", "ticks"):
        reader.step(kind)
    reader.commit(lambda low, high: high)
    assert rewards(reader.result) == [(0, None)]
    reader._spec = replace(WAITS, metrics={"judge": Metric(wait_s=5)}, late="drop")
    reader.assign()
    story.run(9)
    while kinds := reader.readable():
        reader.step(kinds[0])
    reader.commit(lambda low, high: high)
    assert rewards(reader.result) == [(0, None)]
    assert set(reader.result.outcomes().values()) == {"late"}
