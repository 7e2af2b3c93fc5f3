"""Figures of a step against what they say they are."""

from __future__ import annotations

import math

from hypothesis import given as examples
from hypothesis import strategies as st
import pytest
import torch

from services.trainer.figures import LAGS, Idle, Sums, of_answers, of_lags, of_speed
from tests.trainer.test_learner import answer


def test_sums_over_micro_batches_are_those_of_all_tokens() -> None:
    torch.manual_seed(0)
    logp_T, behaviour_T = -torch.rand(40), -torch.rand(40)
    advantage_T = torch.randn(40)
    clipped_T = (torch.rand(40) < 0.3).float()
    sampled_T = (torch.rand(40) < 0.8).float()
    given = (logp_T, behaviour_T, advantage_T, clipped_T * sampled_T, sampled_T)
    sums = Sums()
    for part in (slice(0, 7), slice(7, 30), slice(30, 40)):
        sums.add(*(values_T[part] for values_T in given))
    found = sums.figures()
    rows = [r[:4] for r in zip(*(v.tolist() for v in given), strict=True) if r[4]]
    ratios = [math.exp(logp - behaviour) for logp, behaviour, _, _ in rows]
    count = len(rows)
    assert found["ess"] == pytest.approx(sum(ratios) ** 2 / (count * sum(r * r for r in ratios)))
    assert found["mismatch_kl"] == pytest.approx(
        sum(r - 1 - math.log(r) for r in ratios) / count, rel=1e-4
    )
    assert found["entropy"] == pytest.approx(-sum(logp for logp, _, _, _ in rows) / count)
    assert found["clip_fraction"] == pytest.approx(sum(c for _, _, _, c in rows) / count)
    for name, sign in (("positive", 1), ("negative", -1)):
        clips = [c for _, _, a, c in rows if a * sign > 0]
        assert found[f"clip_fraction_{name}"] == pytest.approx(sum(clips) / len(clips))


def test_tokens_that_nobody_sampled_are_in_no_figure_of_ratios() -> None:
    sums = Sums(loss=1.5)
    zero_T = torch.zeros(3)
    sums.add(-torch.ones(3), zero_T, torch.ones(3), zero_T, zero_T)
    assert sums.figures() == {"loss": 1.5}


def test_what_answers_decide() -> None:
    names = ["cispo", "cispo", "sft", "dpo", "dpo"]
    given = [
        answer(n, objective=name, reward=float(n), age_versions=age)
        for n, (name, age) in enumerate(zip(names, [0, 3, None, 9, 200], strict=True))
    ]
    found = of_answers(given, [0.5, 0.0, 1.0, 1.0, -1.0])
    assert found["answers"] == 5 and found["effective"] == 4 and found["no_signal"] == 0
    assert found["reward"] == pytest.approx((0 + 1 + 3 + 4) / 4)
    assert [found[f"objective_{n}"] for n in ("cispo", "dpo", "sft")] == [2, 2, 1]
    assert found["length_tokens"] == pytest.approx(sum(len(a.tokens) for a in given) / 5)
    lags = {name: value for name, value in found.items() if name.startswith("lag_")}
    assert lags == {
        "lag_mean": 53.0,
        "lag_max": 200.0,
        "lag_0": 1.0,
        "lag_2": 1.0,
        "lag_8": 1.0,
        "lag_64": 1.0,
    }
    alone = of_answers(given[2:3], [0.0])
    assert alone["no_signal"] == 1 and "reward" not in alone and "lag_mean" not in alone


@examples(st.lists(st.integers(0, 300), min_size=1))
def test_every_answer_is_in_one_bin_of_ages(ages: list[int]) -> None:
    found = of_lags(ages)
    for bound, above in zip(LAGS, [*LAGS[1:], 10**9], strict=True):
        assert found.get(f"lag_{bound}", 0.0) == sum(bound <= age < above for age in ages)


def test_speed_is_tokens_and_operations_by_the_time() -> None:
    assert of_speed(300, 2.0, 1_000_000, None, 1) == {"step_s": 2.0, "tokens_per_s": 150.0}
    for processes in (1, 4):
        found = of_speed(300, 2.0, 1_000_000, 0.009, processes)
        assert found["mfu"] == pytest.approx(6 * 150 * 1e6 / 9e9 / processes)


def test_idle_is_the_share_of_waiting_since_the_last_step() -> None:
    now_s = 100.0
    idle = Idle(lambda: now_s)
    now_s = 106.0
    with idle.waiting():
        now_s = 108.0
    assert idle.share() == pytest.approx(0.25)
    with idle.waiting():
        now_s = 110.0
    assert idle.share() == 1.0
    assert idle.share() == 0.0, "no time has passed"
    now_s = 120.0
    with pytest.raises(RuntimeError), idle.waiting():
        now_s = 121.0
        raise RuntimeError
    assert idle.share() == pytest.approx(1 / 11)
