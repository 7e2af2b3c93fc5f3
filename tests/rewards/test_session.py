"""What the turns of a session have to do with each other: credit, next turn and retry."""

from __future__ import annotations

import pytest

from services.rewards.session import mark
from services.rewards.spec import Spec
from services.rewards.terms import Implicit, Metric
from tests.rewards.history import Result, interaction_of, read_in_order
from tests.rewards.test_join import SPEC, Story, rewards

SIGNALS = Spec(
    wait_s=5,
    orphan_s=20,
    horizon_s=3600,
    implicit={"next_turn": Implicit(unseen=0.0), "retry": Implicit(seen=-1.0)},
    combine="sum",
)


def credit(story: Story, metric: Metric, choice: int = 0) -> list[float | None]:
    spec = Spec(wait_s=5, orphan_s=20, horizon_s=3600, metrics={"thumbs": metric})
    result = story.end(spec)
    newest = {t.interaction_id: t.reward for t in result.revisions() if t.choice == choice}
    return [newest[one] for one in sorted(newest)]


@pytest.mark.parametrize(
    ("session", "shares"),
    [
        ("equal", [1.0, 1.0, 1.0, None]),
        ("last", [None, None, 1.0, None]),
        ("discounted", [0.25, 0.5, 1.0, None]),
    ],
)
def test_a_session_s_credit_goes_to_the_turns_before_it(
    session: str, shares: list[float | None]
) -> None:
    story = Story()
    for _ in range(3):
        story.turn()
        story.turn(group_id="g")
        story.run(1)
    story.feedback("default:s", "all")
    story.wait(0.1)
    story.turn()
    grouped = [shares[0], None, shares[1], None, shares[2], None, shares[3]]
    metric = Metric(session=session, discount=0.5)  # type: ignore[arg-type]
    assert credit(story, metric) == grouped


def test_turns_are_in_the_order_of_their_answers() -> None:
    story = Story()
    early = interaction_of("default:s", story.now_ms, 1)
    story.wait(1)
    quick = story.turn()
    story.wait(1)
    story.prompt(early)
    story.output(early)
    story.feedback("default:s", "all")
    assert early < quick
    assert credit(story, Metric(session="last")) == [1.0, None]


def test_every_choice_of_the_last_turn_has_the_credit() -> None:
    story = Story()
    story.turn(choices=2)
    story.wait(1)
    story.turn(choices=2)
    story.feedback("default:s", "all")
    for choice in (0, 1):
        assert credit(story, Metric(session="last"), choice) == [None, 1.0]


def test_a_share_is_said_and_stays() -> None:
    story = Story()
    first = story.turn()
    story.wait(1)
    story.turn()
    story.feedback("default:s", "all")
    story.run(10)
    story.feedback(first, "more", metric="other")
    spec = Spec(
        wait_s=5,
        orphan_s=20,
        horizon_s=3600,
        metrics={"thumbs": Metric(session="discounted", discount=0.81)},
    )
    said = [(t.revision, t.reward, t.components[0].reason) for t in story.end(spec).revisions()]
    assert said == [(0, 0.81, "discounted 0.81"), (1, 0.81, "discounted 0.81"), (0, 1.0, None)]


def test_who_is_not_the_last_does_not_hold_the_outcome() -> None:
    story = Story()
    story.output(interaction_of("default:s", story.now_ms, 1))  # its prompt never comes
    story.wait(1)
    story.turn()
    offset = story.feedback("default:s", "all")
    story.run(7)
    spec = Spec(wait_s=5, orphan_s=20, horizon_s=3600, metrics={"thumbs": Metric(session="last")})
    assert read_in_order(story, spec).result.outcomes() == {offset: "joined"}


def signals(story: Story) -> list[tuple[float | None, ...]]:
    revisions = story.end(SIGNALS).revisions()
    return [tuple(c.value for c in t.components) for t in revisions]


def ask(story: Story, asked: str, **prompt: object) -> str:
    return story.turn(asked=asked, **prompt)


def test_going_on_and_asking_again() -> None:
    story = Story()
    ask(story, "what is  Up?")
    story.wait(1)
    ask(story, "What is up?")
    story.wait(5)
    ask(story, "and now?")
    story.wait(5.1)
    ask(story, "too late")
    assert signals(story) == [(0.0, -1.0), (1.0, None), (0.0, None), (0.0, None)]


def test_who_does_not_consent_is_no_signal() -> None:
    story = Story()
    ask(story, "a")
    ask(story, "a", learn=False)
    ask(story, "b", learn=False)
    assert signals(story) == [(0.0, None), (), ()]


def test_members_of_a_group_are_neither() -> None:
    story = Story()
    ask(story, "a", group_id="g")
    ask(story, "a", group_id="g")
    story.wait(1)
    ask(story, "b")
    assert signals(story) == [(1.0, None), (1.0, None), (0.0, None)]


def test_signals_are_not_corrected_and_a_revision_keeps_them() -> None:
    story = Story()
    first = ask(story, "a")
    story.run(8)
    ask(story, "a")
    story.feedback(first, "late", metric="other")
    assert signals(story) == [(0.0, None), (0.0, None), (0.0, None)]


def test_silence_has_the_default_reward_where_no_signal_says_otherwise() -> None:
    story = Story()
    story.turn()
    spec = Spec(implicit={"retry": Implicit()}, default_reward=0.25, wait_s=5, orphan_s=20)
    result: Result = story.end(spec)
    assert rewards(result) == [(0, 0.25)]
    assert SPEC.longest_wait_ms == 5000


@pytest.mark.parametrize(
    ("messages", "same"),
    [
        ('[{"role": "system", "content": "x"}, {"role": "user", "content": "Hello  you "}]', True),
        ('[{"role": "user", "content": [{"type": "text", "text": "hello you"}]}]', True),
        ('"HELLO YOU"', True),
        ('[{"role": "user", "content": "hello me"}]', False),
    ],
)
def test_what_was_asked(messages: str, same: bool) -> None:
    assert mark(messages) and (mark(messages) == mark('"hello you"')) is same


@pytest.mark.parametrize(
    "messages",
    [
        None,
        "",
        "{",
        "[]",
        "3",
        "[" * 100_000,
        '[{"role": "user", "content": "a"}, {"role": "tool", "content": "b"}]',
        '[{"role": "user", "content": null}]',
        '[{"role": "user", "content": " "}]',
    ],
)
def test_nothing_was_asked(messages: str | None) -> None:
    assert mark(messages) == b""
