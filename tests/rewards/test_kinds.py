"""Feedback that is more than a value: edits of an answer, and preferences between two."""

from __future__ import annotations

import pytest

from services.rewards.spec import Spec
from services.rewards.terms import Metric
from tailrace import events
from tests.rewards.history import interaction_of, read_in_order
from tests.rewards.test_join import SPEC, Story, rewards

PREFER = Spec(
    wait_s=5,
    orphan_s=20,
    horizon_s=3600,
    metrics={"thumbs": Metric(preferred=1.0, rejected=-1.0, text=0.25)},
)


def edit(story: Story, subject: str, token: str, text: str, **fields: object) -> int:
    content = events.FeedbackContent(text=text)
    given = {"kind": "demonstration", "boolean": None, "content": content, **fields}
    return story.feedback(subject, token, **given)


def prefer(story: Story, winner: str, token: str, loser: str, **fields: object) -> int:
    given = {"kind": "preference", "boolean": None, "preferred_over": loser, **fields}
    return story.feedback(winner, token, **given)


def edits(story: Story) -> list[tuple[int, str | None]]:
    revisions = story.end(PREFER).revisions()
    return [(t.revision, t.content and t.content.demonstration) for t in revisions]


def test_the_newest_standing_edit_is_in_the_trajectory() -> None:
    story = Story()
    interaction = story.turn()
    edit(story, interaction, "a", "first")
    edit(story, interaction, "b", "second")
    story.run(8)
    story.feedback(interaction, "c", action="retract", replaces=f"{interaction}!b")
    story.run(3)
    story.feedback(interaction, "d", action="retract", replaces=f"{interaction}!a")
    assert edits(story) == [(0, "second"), (1, "first"), (2, None)]
    assert rewards(story.end(PREFER)) == [(0, 0.25), (1, 0.25), (2, None)]


def test_an_edit_is_of_one_choice_and_needs_consent() -> None:
    story = Story()
    interaction = story.turn(choices=2)
    edit(story, interaction, "a", "mine", choice=1)
    edit(story, story.turn(learn=False), "b", "not to be kept")
    edit(story, "default:s", "c", "of a whole session")
    assert edits(story) == [(0, None), (0, "mine"), (0, None)]


def test_an_edit_survives_a_restart_and_is_not_in_memory() -> None:
    story = Story()
    interaction = story.turn()
    edit(story, interaction, "a", "kept")
    story.run(2)
    reader = read_in_order(story, PREFER)
    reader.assign()
    (heard,) = reader.join._memory.unsettled
    assert not hasattr(heard.fact, "text")
    story.run(10)
    while kinds := reader.readable():
        reader.step(kinds[0])
    reader.commit(lambda low, high: high)
    (one,) = reader.result.revisions()
    assert one.content is not None and one.content.demonstration == "kept"


@pytest.mark.parametrize("first", ["preference", "outputs"])
def test_a_preference_between_choices(first: str) -> None:
    story = Story()
    interaction = interaction_of("default:s", story.now_ms, 1)
    if first == "preference":
        prefer(story, interaction, "a", "0", choice=1)
    story.prompt(interaction)
    story.output(interaction, 0)
    story.output(interaction, 1)
    if first == "outputs":
        prefer(story, interaction, "a", "0", choice=1)
    result = story.end(PREFER)
    lost, won = result.revisions()
    assert (lost.reward, lost.preferred_over) == (-1.0, [])
    assert (won.reward, won.preferred_over) == (1.0, [f"{interaction}/0"])
    assert won.feedback_ids == lost.feedback_ids == [f"{interaction}!a"]
    assert result.outcomes() == {0: "joined"}


def test_a_preference_between_turns_is_taken_back_from_both() -> None:
    story = Story()
    worse = story.turn()
    better = story.turn()
    offset = prefer(story, better, "a", worse)
    story.run(8)
    story.feedback(better, "b", action="retract", replaces=f"{better}!a")
    result = story.end(PREFER)
    assert rewards(result) == [(0, -1.0), (1, None), (0, 1.0), (1, None)]
    assert result.outcomes()[offset] == "joined"
    assert [t.preferred_over for t in result.revisions()] == [[], [], [f"{worse}/0"], []]


def test_another_mind_about_a_preference() -> None:
    story = Story()
    first, second = story.turn(), story.turn()
    one = prefer(story, first, "a", second)
    two = story.feedback(first, "b", boolean=False, replaces=f"{first}!a")
    result = story.end(PREFER)
    assert result.outcomes() == {one: "replaced", two: "joined"}
    assert rewards(result) == [(0, 0.0), (0, None)]


def test_an_answer_that_never_came_cannot_lose() -> None:
    story = Story()
    better = story.turn()
    offset = prefer(story, better, "a", interaction_of("default:s", story.now_ms, 99))
    story.run(15)
    result = story.end(PREFER)
    assert rewards(result) == [(0, 1.0)]
    assert result.outcomes() == {offset: "joined"}


@pytest.mark.parametrize(
    ("loser", "outcome", "reason"),
    [
        ("0", "invalid", "preferred_over"),
        ("{own}/0", "invalid", "preferred_over"),
        ("500", "invalid", "preferred_over"),
        ("default:t~01HF7YAT00000", "invalid", "preferred_over"),
        ("default:s~lower", "invalid", "preferred_over"),
        ("other:s~01HF7YAT00000", "foreign", "foreign"),
        ("other:s~01HF7YAT00000/1", "foreign", "foreign"),
        ("nothing", "invalid", "preferred_over"),
        ("default:s~0000000000000", "late", "horizon"),
    ],
)
def test_who_cannot_lose(loser: str, outcome: str, reason: str) -> None:
    story = Story()
    interaction = story.turn()
    prefer(story, interaction, "a", loser.format(own=interaction))
    result = story.end()
    assert result.outcomes() == {0: outcome}
    assert reason.encode() in next(iter(result.receipts[0]))
    assert rewards(result) == [(0, None)]


def test_a_session_cannot_be_preferred() -> None:
    story = Story()
    interaction = story.turn()
    prefer(story, "default:s", "a", interaction)
    assert story.end().outcomes() == {0: "invalid"}


def test_the_kind_of_a_bare_record_is_read_from_what_it_says() -> None:
    story = Story()
    worse, better = story.turn(), story.turn()
    prefer(story, better, "a", worse, kind=None)
    story.feedback(
        worse,
        "b",
        kind=None,
        boolean=None,
        content=events.FeedbackContent(text="oh"),
        metric="note",
    )
    result = story.end(SPEC)
    assert [t.preferred_over for t in result.revisions()] == [[], [f"{worse}/0"]]
    assert set(result.outcomes().values()) == {"joined"}
