"""Preferences, likes, demonstrations and the anchor against slow references; what tokens count
for."""

from __future__ import annotations

import math

from hypothesis import given as examples
from hypothesis import strategies as st
import pytest
import torch
from torch import Tensor

from services.trainer.objectives import anchor, preference
from services.trainer.objectives.names import Estimator
from services.trainer.objectives.reduction import shares
from tests.trainer.test_objectives import ANSWER_T, TOKENS, answer_rows, rows, tokens

ANSWERS = sorted(set(ANSWER_T.tolist()))
SIGN_A = {number: (-1.0, 1.0)[index % 2] for index, number in enumerate(ANSWERS)}
SIGN_T = torch.tensor([SIGN_A[n] for n in ANSWER_T.tolist()], dtype=torch.float64)


def signed(seed: int = 0) -> tuple[Tensor, ...]:
    logp_T, behaviour_T, _, mask_T = tokens(seed)
    return logp_T, behaviour_T, SIGN_T, mask_T


def log_ratio(given: tuple[Tensor, ...], number: int) -> float:
    return sum(logp - behaviour for logp, behaviour, _, m in answer_rows(given, number) if m)


def by_answer(loss_T: Tensor) -> dict[int, float]:
    return {n: float(loss_T.detach()[ANSWER_T == n].sum()) for n in ANSWERS}


def slow_dpo(chosen: float, rejected: float, beta: float) -> float:
    return math.log(1.0 + math.exp(-beta * (chosen - rejected)))


def test_dpo_is_its_reference_in_value_and_gradient_from_either_answer() -> None:
    given = signed()
    logp_T, behaviour_T, _, mask_T = given
    one, other = ANSWERS[1], ANSWERS[0]  # chosen, rejected
    rivals = {one: log_ratio(given, other), other: log_ratio(given, one)}
    rival_T = torch.tensor([rivals.get(n, 0.0) for n in ANSWER_T.tolist()], dtype=torch.float64)
    loss_T, clipped_T = preference.dpo(*given, ANSWER_T, rival_T, beta=0.3)
    expected = slow_dpo(rivals[other], rivals[one], 0.3)
    found = by_answer(loss_T)
    assert found[one] == pytest.approx(expected) and found[other] == pytest.approx(expected)
    assert not clipped_T.any()
    # The mean over the two answers has the gradient of the pair.
    mine_T = (ANSWER_T == one) | (ANSWER_T == other)
    (gradient_T,) = torch.autograd.grad(loss_T[mine_T].sum() / 2, logp_T)
    apart_T = (logp_T - behaviour_T) * mask_T
    margin = apart_T[ANSWER_T == one].sum() - apart_T[ANSWER_T == other].sum()
    (pair_T,) = torch.autograd.grad(-torch.nn.functional.logsigmoid(0.3 * margin), logp_T)
    assert torch.allclose(gradient_T, pair_T)


def test_a_preference_that_is_won_pulls_no_more() -> None:
    logp_T, behaviour_T, _, mask_T = signed(1)
    sides = []
    for rival in (-1000.0, 0.0):
        rival_T = torch.full((TOKENS,), rival, dtype=torch.float64)
        loss_T, _ = preference.dpo(
            logp_T, behaviour_T, torch.ones_like(logp_T), mask_T, ANSWER_T, rival_T, beta=0.3
        )
        sides.append(torch.autograd.grad(loss_T.sum(), logp_T)[0])
    assert float(sides[0].abs().max()) < 1e-9 < float(sides[1].abs().max())


@pytest.mark.parametrize("size", [1.0, 0.25])
def test_kto_is_its_reference_and_its_gradient_is_that_of_its_value(size: float) -> None:
    bounds = {"reference_kl": 0.4, "beta": 0.3}
    logp_T, behaviour_T, sign_T, mask_T = signed(2)
    given = (logp_T, behaviour_T, sign_T * size, mask_T)
    loss_T, _ = preference.kto(*given, ANSWER_T, **bounds)
    for number, found in by_answer(loss_T).items():
        sign = SIGN_A[number]
        inside = 0.3 * sign * (log_ratio(given, number) - 0.4)
        expected = (1.0 - 1.0 / (1.0 + math.exp(-inside))) * size
        counted = any(r[3] for r in answer_rows(given, number))
        assert found == pytest.approx(expected if counted else 0.0)
    logp_T, *rest = given
    assert torch.autograd.gradcheck(
        lambda x: preference.kto(x, *rest, ANSWER_T, **bounds)[0], (logp_T,)
    )


def test_kto_learns_nothing_from_an_answer_without_signal() -> None:
    logp_T, behaviour_T, _, mask_T = signed()
    loss_T, _ = preference.kto(
        *(logp_T, behaviour_T, torch.zeros_like(logp_T), mask_T, ANSWER_T),
        **{"reference_kl": 0.0, "beta": 0.1},
    )
    assert not loss_T.any()


def test_the_divergence_from_the_reference_is_its_estimate_and_never_negative() -> None:
    given = signed(3)
    kl_T = preference.kl_of(given[0], given[1], given[3])
    expected = []
    for logp, behaviour, _, mask in rows(given):
        ratio = math.exp(logp - behaviour)
        expected.append(mask * (ratio * math.log(ratio) - ratio + 1.0))
    assert kl_T.tolist() == pytest.approx(expected)
    assert (kl_T >= 0).all() and not kl_T.requires_grad


def test_the_divergence_from_the_reference_is_the_true_one_on_average() -> None:
    torch.manual_seed(0)
    trained_V, sampled_V = (torch.randn(6, dtype=torch.float64).log_softmax(0) for _ in range(2))
    drawn = torch.multinomial(sampled_V.exp(), 200_000, replacement=True)
    kl_T = preference.kl_of(trained_V[drawn], sampled_V[drawn], torch.ones(len(drawn)))
    true = float((trained_V.exp() * (trained_V - sampled_V)).sum())
    assert float(kl_T.mean()) == pytest.approx(true, rel=0.03)


def test_sft_is_the_likelihood_and_looks_at_nothing_else() -> None:
    logp_T, behaviour_T, advantage_T, mask_T = given = tokens()
    loss_T, _ = preference.sft(*given)
    assert loss_T.tolist() == pytest.approx([-logp * mask for logp, _, _, mask in rows(given)])
    again_T, _ = preference.sft(logp_T, behaviour_T - 3.0, -advantage_T, mask_T)
    assert torch.equal(loss_T, again_T)
    assert torch.autograd.gradcheck(lambda x: preference.sft(x, *given[1:])[0], (logp_T,))


def slow_kl(logp: float, base: float, estimator: str) -> float:
    apart = logp - base
    return {"k1": apart, "k2": apart**2 / 2, "k3": math.exp(-apart) - 1 + apart}[estimator]


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_the_anchor_is_its_estimate(estimator: Estimator) -> None:
    logp_T, base_T, _, mask_T = given = tokens(4)
    kl_T = anchor.divergence(logp_T, base_T, mask_T, estimator=estimator)
    expected = [slow_kl(logp, base, estimator) * mask for logp, base, _, mask in rows(given)]
    assert kl_T.tolist() == pytest.approx(expected)
    if estimator != "k1":
        assert torch.autograd.gradcheck(
            lambda x: anchor.divergence(x, base_T, mask_T, estimator=estimator), (logp_T,)
        )


def test_k1_and_k2_have_one_gradient_and_it_is_that_of_the_divergence() -> None:
    """On tokens of the trained weights: the mean gradient is that of the KL itself."""
    torch.manual_seed(1)
    logit_V = torch.randn(5, dtype=torch.float64, requires_grad=True)
    base_V = torch.randn(5, dtype=torch.float64).log_softmax(0)
    logp_V = logit_V.log_softmax(0)
    chance_V = logp_V.detach().exp()
    true = torch.autograd.grad((logp_V.exp() * (logp_V - base_V)).sum(), logit_V)[0]
    found = {}
    for estimator in ("k1", "k2"):
        kl_V = anchor.divergence(logit_V.log_softmax(0), base_V, torch.ones(5), estimator=estimator)
        (found[estimator],) = torch.autograd.grad((chance_V * kl_V).sum(), logit_V)
    assert torch.allclose(found["k1"], found["k2"])
    assert torch.allclose(found["k2"], true)


COUNTS = st.lists(st.integers(1, 30), min_size=1, max_size=12)


@examples(COUNTS, st.sampled_from(["token", "sequence", "batch"]), st.data())
def test_shares_add_up_over_any_micro_batches(counts: list[int], how: str, data: st.DataObject):
    names = [data.draw(st.sampled_from(["cispo", "kto"])) for _ in counts]
    found = shares(counts, names, how)
    losses = [[data.draw(st.floats(-5, 5)) for _ in range(n)] for n in counts]
    cut = data.draw(st.integers(0, len(counts)))
    parts = [slice(0, cut), slice(cut, None)]
    total = sum(
        sum(share * sum(loss) for share, loss in zip(found[p], losses[p], strict=True))
        for p in parts
    )
    expected = 0.0
    for count, name, loss in zip(counts, names, losses, strict=True):
        if how == "batch" or name == "kto":
            expected += sum(loss) / len(counts)
        elif how == "sequence":
            expected += sum(loss) / count / len(counts)
        else:
            expected += sum(loss) / sum(counts)
    assert total == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("how", ["token", "sequence"])
def test_the_shares_of_a_step_s_tokens_add_up_to_one(how: str) -> None:
    counts = [3, 1, 8]
    found = shares(counts, ["cispo"] * 3, how)
    assert sum(s * n for s, n in zip(found, counts, strict=True)) == pytest.approx(1.0)
    with pytest.raises(ValueError):
        shares(counts, ["cispo"] * 3, "tokens")
