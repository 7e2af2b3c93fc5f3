"""Alarms of training fire when steps in a row say so, and clear when as many say otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.trainer.alarms import Alarms
from services.trainer.settings import Settings

GOOD = {"effective": 5.0, "entropy": 1.0, "mismatch_kl": 0.02}
Said = list[tuple[int, str, str]]


def said(*figures: dict[str, float], steps: int = 3) -> Said:
    """(step, alarm, state) over steps with these figures, the first verdicts of all good left
    out."""
    alarms = Alarms(Settings(model="m", model_dir=Path(), alarm_steps=steps))
    found = []
    for number, each in enumerate(figures):
        for alarm in alarms.stepped(number, each, now_ms=number):
            assert alarm.stream == f"trainer.{alarm.detector}" and alarm.seen == number + 1
            assert alarm.event_time_ms == number and alarm.value is not None
            found.append((number, str(alarm.detector), alarm.state))
    return found


def first(names: set[str], steps: int = 3) -> Said:
    return [(steps - 1, n, "cleared") for n in sorted(names)]


def test_a_good_start_says_so_once() -> None:
    everything = {"no_signal", "entropy_collapse", "mismatch_growth"}
    assert sorted(said(*[GOOD] * 9)) == sorted(first(everything))


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("no_signal", {"effective": 0.0}),
        ("entropy_collapse", {"entropy": 0.04}),
        ("mismatch_growth", {"mismatch_kl": 0.3}),
    ],
)
def test_each_fires_after_steps_in_a_row_and_clears_after_as_many(
    name: str, bad: dict[str, float]
) -> None:
    worse = GOOD | bad
    course = [*[GOOD] * 3, worse, worse, GOOD, *[worse] * 4, GOOD, GOOD, worse, *[GOOD] * 4]
    found = [(number, state) for number, which, state in said(*course) if which == name]
    assert found == [(2, "cleared"), (8, "fired"), (15, "cleared")]
    others = {which for number, which, _ in said(*course) if number != 2}
    assert others == {name}


def test_what_has_always_been_bad_fires_at_once_and_a_level_is_no_growth() -> None:
    found = said(*[{"effective": 0.0, "entropy": 0.0, "mismatch_kl": 3.0}] * 5)
    assert sorted(found) == [
        (2, "entropy_collapse", "fired"),
        (2, "mismatch_growth", "cleared"),
        (2, "no_signal", "fired"),
    ]


def test_growth_that_stays_becomes_the_mean_and_clears() -> None:
    course = [GOOD] * 3 + [GOOD | {"mismatch_kl": 0.2}] * 100
    states = [state for _, which, state in said(*course) if which == "mismatch_growth"]
    assert states == ["cleared", "fired", "cleared"]


def test_growth_among_roundings_is_none() -> None:
    course = [GOOD | {"mismatch_kl": 1e-5}] * 3 + [GOOD | {"mismatch_kl": 5e-3}] * 9
    assert "fired" not in {state for _, _, state in said(*course)}


def test_a_step_of_demonstrations_alone_says_nothing_of_what_is_sampled() -> None:
    shown = {"effective": 4.0}
    course = [GOOD] * 3 + [GOOD | {"entropy": 0.0}, shown] * 3
    found = [(number, state) for number, which, state in said(*course) if which[0] == "e"]
    assert found == [(2, "cleared"), (7, "fired")]


def test_a_skipped_step_fires_and_the_next_one_clears() -> None:
    alarms = Alarms(Settings(model="m", model_dir=Path()))
    fired = alarms.skipped(3, "loss is nan", now_ms=7)
    assert [(a.stream, a.state, a.message) for a in fired] == [
        ("trainer.non_finite", "fired", "step 3: loss is nan")
    ]
    cleared = alarms.stepped(3, GOOD, now_ms=8)
    assert [(a.stream, a.state) for a in cleared] == [("trainer.non_finite", "cleared")]
    assert alarms.stepped(4, GOOD, now_ms=9) == []
