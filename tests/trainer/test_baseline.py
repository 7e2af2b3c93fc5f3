"""The group-free baseline."""

from __future__ import annotations

import pytest

from services.trainer.baseline import Baseline


def test_slices_do_not_mix() -> None:
    baseline = Baseline(decay=0.9)
    baseline.learn([("a", 1.0), ("b", -1.0)])
    assert baseline.advantages([("a", 1.0), ("b", 1.0)]) == [0.0, 2.0]


def test_it_begins_as_the_plain_mean_and_goes_on_as_a_moving_one() -> None:
    baseline = Baseline(decay=0.9)
    baseline.learn([("", 1.0)])
    baseline.learn([("", 0.0)])
    assert baseline.slices[""].mean == pytest.approx(0.5)
    for _ in range(50):
        baseline.learn([("", 0.0)])
    before = baseline.slices[""].mean
    baseline.learn([("", 1.0)])
    assert baseline.slices[""].mean == pytest.approx(before + 0.1 * (1.0 - before))


def test_a_new_slice_is_measured_by_itself() -> None:
    baseline = Baseline(decay=0.9)
    assert baseline.advantages([("", 3.0), ("", 1.0), ("x", 5.0)]) == [1.0, -1.0, 0.0]
    assert baseline.slices == {}
