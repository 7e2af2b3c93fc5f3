"""Intervals against published values and by how often they cover; quantiles; the words."""

from __future__ import annotations

import math
import random
import statistics

from hypothesis import given
from hypothesis import strategies as st
import pytest

from tailrace import estimates
from tailrace.estimates import Estimate

NUMBERS = st.floats(-1e6, 1e6)
SLEEP = (
    [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0],
    [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4],
)
"""Hours of sleep gained by two drugs (Student 1908)."""


def near(*exact: float, within: float) -> Estimate:
    return Estimate(*(pytest.approx(value, abs=within) for value in exact))


@pytest.mark.parametrize(
    ("some", "total", "low", "high"),
    # Newcombe 1998, table I, method 3 (score); then by hand: n / (n + z²).
    [
        *((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605)),
        *((0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718), (10, 10, 0.7225, 1.0)),
    ],
)
def test_a_share_has_wilsons_interval(some: int, total: int, low: float, high: float) -> None:
    assert estimates.wilson(some, total) == pytest.approx((low, high), abs=5e-5)
    assert estimates.share(some, total) == near(some / total, low, high, within=5e-5)


@given(st.floats(0, 1), st.integers(1, 400))
def test_it_holds_its_share_and_is_the_mirror_of_the_rest(part: float, total: int) -> None:
    low, high = estimates.wilson(part * total, total)
    assert 0.0 <= low <= part + 1e-12 and part - 1e-12 <= high <= 1.0
    rest = estimates.wilson((1 - part) * total, total)
    assert rest == pytest.approx((1 - high, 1 - low), abs=1e-9)


def test_of_nothing_there_is_no_estimate() -> None:
    assert estimates.wilson(0, 0) == (0.0, 1.0)
    nothing = [estimates.share(0, 0), estimates.shares((0, 0), (1, 2)), estimates.mean([])]
    nothing += [estimates.unpaired([], [2.0]), estimates.unpaired([2.0], [])]
    assert nothing == [Estimate()] * 5
    assert estimates.quantile([], 0.5) is None


def test_one_value_has_no_interval() -> None:
    assert estimates.mean([7.0]) == Estimate(7.0)
    assert estimates.unpaired([1.0], [2.0, 3.0]) == Estimate(1.5)


def test_two_shares_differ_as_newcombe_says() -> None:
    # 1998, table II, method 10: 56/70 and 48/80.
    found = estimates.shares((48, 80), (56, 70))
    assert found == near(0.2, 0.0524, 0.3339, within=5e-5)


def test_means_differ_as_student_and_welch_say() -> None:
    # R: t.test(extra ~ group, data = sleep), with paired = TRUE and without.
    differences = [b - a for a, b in zip(*SLEEP, strict=True)]
    assert estimates.paired(differences) == near(1.58, 0.7001, 2.4599, within=5e-4)
    assert estimates.unpaired(*SLEEP) == near(1.58, -0.2055, 3.3655, within=5e-4)
    assert estimates.mean([3.0, 5.0]) == near(4.0, 4 - 12.706, 4 + 12.706, within=1e-3)


@given(st.lists(NUMBERS, min_size=2, max_size=9), st.lists(NUMBERS, min_size=2, max_size=9))
def test_the_other_way_round_a_difference_is_its_mirror(a: list[float], b: list[float]) -> None:
    one, two = estimates.unpaired(a, b), estimates.unpaired(b, a)
    assert None not in (one.value, one.low, one.high)
    turned = [-two.value, -two.high, -two.low]  # type: ignore[operator]
    assert [one.value, one.low, one.high] == pytest.approx(turned, rel=1e-9, abs=1e-6)


def test_large_numbers_do_not_overflow() -> None:
    found = estimates.mean([1e200, 3e200])
    assert found.value == 2e200 and found.high is not None and math.isfinite(found.high)


@pytest.mark.parametrize(
    ("freedom", "exact"), [(1, 12.7062), (17.776, 2.1028), (30, 2.0423), (31, 2.0395), (100, 1.984)]
)
def test_quantiles_of_students_t(freedom: float, exact: float) -> None:
    assert estimates.student(freedom) == pytest.approx(exact, abs=1e-3)


@given(st.floats(1, 1e9), st.floats(0, 10))
def test_more_freedom_is_less_doubt(freedom: float, more: float) -> None:
    assert 1.959 < estimates.student(freedom + more) <= estimates.student(freedom) + 1e-9


def test_intervals_cover_what_they_promise() -> None:
    chance, rounds = random.Random(1), 2000
    shares = means = differences = 0
    for _ in range(rounds):
        low, high = estimates.wilson(sum(chance.random() < 0.3 for _ in range(100)), 100)
        shares += low <= 0.3 <= high
        few = [chance.gauss(3.0, 2.0) for _ in range(5)]
        others = [chance.gauss(1.0, 0.5) for _ in range(12)]
        means += covers(estimates.mean(few), 3.0)
        differences += covers(estimates.unpaired(few, others), -2.0)
    for covered in (shares, means, differences):
        assert 0.93 <= covered / rounds <= 0.97


def covers(found: Estimate, truth: float) -> bool:
    assert found.low is not None and found.high is not None
    return found.low <= truth <= found.high


@given(st.lists(NUMBERS, min_size=2), st.sampled_from([5, 50, 95]))
def test_quantiles_are_those_of_the_library(values: list[float], percent: int) -> None:
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    assert estimates.quantile(values, percent / 100) == pytest.approx(cuts[percent - 1], abs=1e-6)


def test_quantiles_at_the_edges() -> None:
    assert estimates.quantile([7.0], 0.95) == 7.0
    assert estimates.quantile([3.0, 1.0, 2.0], 0.0) == 1.0
    assert estimates.quantile([3.0, 1.0, 2.0], 1.0) == 3.0


def test_the_words() -> None:
    assert estimates.number(None) == "none" and estimates.number(2 / 3) == "0.6667"
    assert str(Estimate()) == "none" and str(Estimate(1.0)) == "1"
    assert str(Estimate(0.5, -1 / 3, 1.0)) == "0.5 [-0.3333, 1]"
