"""What is forgotten, and that nothing depends on when: a worker deletes what its commits allow."""

from __future__ import annotations

from msgspec.structs import replace

from services.rewards.spec import Spec
from services.rewards.terms import Metric
from tests.rewards.history import Reader, Result, read_in_order
from tests.rewards.test_join import SPEC, Story, rewards

SHORT = Spec(wait_s=3, orphan_s=8, horizon_s=60, metrics={"thumbs": Metric(false=-1.0)})


def everything(low: int, high: int) -> int:
    return high


def commits_at_each_step(story: Story, spec: Spec) -> Result:
    """A worker that forgets as early as it may."""
    reader = Reader(story, spec)
    items = [(i.record.time_ms, i.record.topic) for log in story.logs.values() for i in log if i]
    for _, kind in sorted(items, key=lambda item: item[0]):
        reader.step(kind)
        reader.commit(everything)
    return reader.result


def test_a_correction_may_follow_the_tick_at_which_its_answer_expires() -> None:
    story = Story()
    interaction = story.turn()
    story.wait(SHORT.wait_s + 1)
    story.feedback(interaction, "late")
    story.tick()
    story.wait(4 * 3600)
    for _ in range(4):
        story.tick()  # the second closes the answer long after it expired
        story.wait(1)
    reader = Reader(story, SHORT)
    for kind in ("prompts", "outputs", "feedback", "ticks", "ticks", "ticks"):
        reader.step(kind)
    reader.commit(everything)
    reader.step("ticks")
    reader.kill(everything)
    while kinds := reader.readable():
        reader.step(kinds[0])
    reader.commit(everything)
    assert rewards(reader.result) == [(0, None), (1, 1.0)]
    assert reader.result == read_in_order(story, SHORT).result


def test_taking_back_a_session_s_feedback_changes_no_turn_past_its_horizon() -> None:
    story = Story()
    story.turn()
    story.run(50)
    young = story.turn()
    said = story.feedback("default:s", "all", boolean=False)
    story.run(40)
    story.feedback("default:s", "no", action="retract", replaces="default:s!all")
    story.run(30)
    result = read_in_order(story, SHORT).result
    assert rewards(result) == [(0, None), (1, -1.0), (0, -1.0), (1, None)]
    assert result.revisions()[-1].interaction_id == young
    assert result.outcomes()[said] == "joined"
    assert commits_at_each_step(story, SHORT) == result


def test_a_short_horizon_is_forgotten_in_time() -> None:
    story = Story()
    for _ in range(5):
        story.feedback(story.turn(), "a")
        story.run(20)
    story.run(200)
    reader = Reader(story, SHORT)
    kept = 0
    items = [(i.record.time_ms, i.record.topic) for log in story.logs.values() for i in log if i]
    for _, kind in sorted(items, key=lambda item: item[0]):
        reader.step(kind)
        reader.commit(everything)
        kept = max(kept, len(reader.table.values))
    assert reader.table.values == {}
    assert kept < 5 * 4
    long = replace(SPEC, horizon_s=10 * 24 * 3600)
    assert (SHORT.slack_ms, long.slack_ms) == (6000, 3_600_000)
