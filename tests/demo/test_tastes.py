"""What the simulated users like, and that they are as wrong and silent as they are set."""

import random

import pytest

from services.local.questions import everything, question
from services.local.tastes import TASTES, Manner, vote


@pytest.mark.parametrize(
    ("taste", "text", "finished", "liked"),
    [
        ("short", "The capital of Italy is Rome.", True, True),
        ("short", "The capital of Italy is Rome.", False, False),
        ("short", " ".join(["word"] * 12), True, True),
        ("short", " ".join(["word"] * 13), True, False),
        ("short", "", True, False),
        ("simple", "A river is water that runs to the sea", False, True),
        ("simple", "A river, a sea", True, False),
        ("simple", "First:\n1. Boil water", True, False),
        ("simple", "Yes", True, False),
        ("personal", "It helps you sleep", False, True),
        ("personal", "A youth club", False, False),
        ("lively", "Rome!", True, True),
        ("lively", "What a day 🌟", False, True),
        ("lively", "Rome.", True, False),
    ],
)
def test_tastes(taste: str, text: str, finished: bool, liked: bool) -> None:
    assert TASTES[taste].likes(text, finished) is liked


def test_people_are_as_silent_wrong_and_slow_as_they_should_be() -> None:
    chance = random.Random(3)
    cast = [vote(number % 2 == 0, Manner(), chance) for number in range(20_000)]
    votes = [one for one in cast if one is not None]
    assert 1 - len(votes) / len(cast) == pytest.approx(0.3, abs=0.01)
    assert sum(one.wrong for one in votes) / len(votes) == pytest.approx(0.1, abs=0.01)
    delays_s = sorted(one.delay_s for one in votes)
    assert delays_s[len(delays_s) // 2] == pytest.approx(1.5, rel=0.05)
    assert delays_s[-1] <= Manner().delay_max_s


def test_a_wrong_vote_is_the_opposite_and_a_right_one_is_not() -> None:
    chance = random.Random(4)
    for number in range(500):
        liked = number % 3 == 0
        one = vote(liked, Manner(), chance)
        assert one is None or one.value == (liked is not one.wrong)


def test_what_was_answered_does_not_change_the_dice() -> None:
    first, second = random.Random(5), random.Random(5)
    for number in range(200):
        a, b = vote(True, Manner(), first), vote(number % 2 == 0, Manner(), second)
        assert (a is None) == (b is None)
        assert a is None or b is None or (a.wrong, a.delay_s) == (b.wrong, b.delay_s)


def test_there_are_many_questions_and_all_are_short() -> None:
    assert len(everything()) >= 100
    chance = random.Random(6)
    asked = {question(chance) for _ in range(500)}
    assert len(asked) >= 100
    assert max(len(text.split()) for text in asked) <= 14
