"""Objectives against slow references in plain Python, and their gradients against their
definitions."""

from __future__ import annotations

from collections.abc import Callable
import math

import pytest
import torch
from torch import Tensor

from services.trainer.objectives import corrected, policy_gradient
from services.trainer.objectives.ratio import ratio_of

LENGTHS = [7, 1, 12, 5, 15]
TOKENS = sum(LENGTHS)
Row = tuple[float, float, float, float]


def tokens(seed: int = 0) -> tuple[Tensor, ...]:
    """(logp, behaviour, advantage, mask) of some answers; ratios on both sides of every bound."""
    torch.manual_seed(seed)
    logp_T = (-torch.rand(TOKENS, dtype=torch.float64) * 5).requires_grad_()
    behaviour_T = logp_T.detach() + torch.randn(TOKENS, dtype=torch.float64)
    advantage_T = torch.randn(TOKENS, dtype=torch.float64)
    mask_T = (torch.rand(TOKENS) < 0.8).double()
    return logp_T, behaviour_T, advantage_T, mask_T


def owners() -> Tensor:
    """Which answer each token is of; in no order, with a number left out."""
    numbers = [n + (n > 2) for n, length in enumerate(LENGTHS) for _ in range(length)]
    order = torch.randperm(TOKENS, generator=torch.Generator().manual_seed(7))
    return torch.tensor(numbers)[order]


ANSWER_T = owners()
AGE_T = torch.tensor([float(n % 6) for n in ANSWER_T.tolist()], dtype=torch.float64)


def rows(given: tuple[Tensor, ...]) -> list[Row]:
    return list(zip(*(g.tolist() for g in given), strict=True))


def answer_rows(given: tuple[Tensor, ...], number: int) -> list[Row]:
    return [r for r, n in zip(rows(given), ANSWER_T.tolist(), strict=True) if n == number]


def clip_gain(ratio: float, advantage: float, low: float, high: float) -> float:
    if advantage > 0:
        return advantage * (1 + high) if ratio > 1 + high else advantage * ratio
    return advantage * (1 - low) if ratio < 1 - low else advantage * ratio


def slow_reinforce(given: tuple[Tensor, ...]) -> list[tuple[float, float]]:
    return [(-a * logp if mask else 0.0, 0.0) for logp, _, a, mask in rows(given)]


def slow_ppo(given: tuple[Tensor, ...], dual: float = math.inf) -> list[tuple[float, float]]:
    found = []
    for logp, behaviour, a, mask in rows(given):
        ratio = math.exp(logp - behaviour)
        gain = clip_gain(ratio, a, 0.2, 0.28)
        if a < 0 and ratio > dual:
            gain = a * dual
        clipped = ratio > 1.28 if a > 0 else ratio < 0.8 or ratio > dual
        found.append((-gain, float(clipped)) if mask else (0.0, 0.0))
    return found


def slow_truncated(given: tuple[Tensor, ...], most: float) -> list[tuple[float, float]]:
    found = []
    for logp, behaviour, a, mask in rows(given):
        ratio = math.exp(logp - behaviour)
        found.append((-min(ratio, most) * a * logp * mask, float(ratio > most) * mask))
    return found


def slow_tis_sequence(given: tuple[Tensor, ...], most: float) -> list[tuple[float, float]]:
    found = []
    for (logp, _, a, mask), number in zip(rows(given), ANSWER_T.tolist(), strict=True):
        product = 1.0
        for other, behaviour, _, counts in answer_rows(given, number):
            product *= math.exp(other - behaviour) if counts else 1.0
        found.append((-min(product, most) * a * logp * mask, float(product > most) * mask))
    return found


def slow_icepop(given: tuple[Tensor, ...]) -> list[tuple[float, float]]:
    found = []
    for logp, behaviour, a, mask in rows(given):
        ratio = math.exp(logp - behaviour)
        inside = 0.5 <= ratio <= 2.0
        found.append((-ratio * a * logp * mask if inside else 0.0, 0.0 if inside else mask))
    return found


def slow_gspo(given: tuple[Tensor, ...]) -> list[tuple[float, float]]:
    found = []
    for (_, _, a, mask), number in zip(rows(given), ANSWER_T.tolist(), strict=True):
        counted = [r for r in answer_rows(given, number) if r[3]]
        apart = sum(logp - behaviour for logp, behaviour, _, _ in counted)
        ratio = math.exp(apart / max(1, len(counted)))
        gain = clip_gain(ratio, a, 0.1, 0.15)
        clipped = ratio > 1.15 if a > 0 else ratio < 0.9
        found.append((-gain, float(clipped)) if mask else (0.0, 0.0))
    return found


def slow_decoupled(given: tuple[Tensor, ...]) -> list[tuple[float, float]]:
    found = []
    for (logp, behaviour, a, mask), age in zip(rows(given), AGE_T.tolist(), strict=True):
        alpha = (age - 1) / age if age > 1 else 0.0
        proximal = behaviour + alpha * (logp - behaviour)
        weight, ratio = math.exp(proximal - behaviour), math.exp(logp - proximal)
        clipped = ratio > 1.28 if a > 0 else ratio < 0.8
        if not mask or weight > 1.5:
            found.append((0.0, mask))
        else:
            found.append((-weight * clip_gain(ratio, a, 0.2, 0.28), float(clipped)))
    return found


Given = tuple[Tensor, ...]
CASES: dict[str, tuple[Callable[..., tuple[Tensor, Tensor]], Callable[..., list]]] = {
    "reinforce": (lambda *g: policy_gradient.reinforce(*g), slow_reinforce),
    "ppo": (lambda *g: policy_gradient.ppo(*g, clip_low=0.2, clip_high=0.28), slow_ppo),
    "dual clip": (
        lambda *g: policy_gradient.ppo(*g, clip_low=0.2, clip_high=0.28, dual_clip=2.0),
        lambda g: slow_ppo(g, 2.0),
    ),
    "cispo": (
        lambda *g: policy_gradient.cispo(*g, ratio_max=3.0),
        lambda g: slow_truncated(g, 3.0),
    ),
    "tis": (lambda *g: corrected.tis(*g, ratio_max=2.0), lambda g: slow_truncated(g, 2.0)),
    "tis_sequence": (
        lambda *g: corrected.tis_sequence(*g, ANSWER_T, ratio_max=2.0),
        lambda g: slow_tis_sequence(g, 2.0),
    ),
    "icepop": (lambda *g: corrected.icepop(*g, ratio_min=0.5, ratio_max=2.0), slow_icepop),
    "gspo": (lambda *g: corrected.gspo(*g, ANSWER_T, clip_low=0.1, clip_high=0.15), slow_gspo),
    "decoupled": (
        lambda *g: corrected.decoupled(*g, AGE_T, clip_low=0.2, clip_high=0.28, weight_max=1.5),
        slow_decoupled,
    ),
}
SMOOTH = ["reinforce", "ppo", "dual clip", "gspo"]
"""Have a gradient that is that of their value; the others hold a weight constant."""


@pytest.mark.parametrize("name", CASES)
def test_an_objective_is_its_reference(name: str) -> None:
    fast, slow = CASES[name]
    for seed in range(5):
        given = tokens(seed)
        loss_T, clipped_T = fast(*given)
        expected = slow(given)
        assert loss_T.tolist() == pytest.approx([e[0] for e in expected]), seed
        assert clipped_T.tolist() == [e[1] for e in expected], seed
    assert name == "reinforce" or 0 < float(clipped_T.sum()) < TOKENS


@pytest.mark.parametrize("name", SMOOTH)
def test_a_smooth_objective_has_the_gradient_of_its_value(name: str) -> None:
    logp_T, *rest = tokens(3)
    assert torch.autograd.gradcheck(lambda x: CASES[name][0](x, *rest)[0], (logp_T,))


@pytest.mark.parametrize("name", ["cispo", "tis", "tis_sequence", "icepop"])
def test_a_weighted_objective_has_the_gradient_of_a_weighted_likelihood(name: str) -> None:
    """``-sg(w) A logp``: its loss over logp is its gradient."""
    logp_T, *rest = tokens(4)
    loss_T, _ = CASES[name][0](logp_T, *rest)
    (gradient_T,) = torch.autograd.grad(loss_T.sum(), logp_T)
    slow_T = torch.tensor([loss for loss, _ in CASES[name][1]((logp_T, *rest))])
    assert gradient_T.tolist() == pytest.approx((slow_T / logp_T.detach()).tolist())


def test_decoupled_has_the_gradient_of_the_whole_ratio_within_its_bounds() -> None:
    """w r = ratio, whatever the age: so ``-A ratio`` where it is not clipped, else nothing."""
    logp_T, *rest = tokens(5)
    loss_T, clipped_T = CASES["decoupled"][0](logp_T, *rest)
    (gradient_T,) = torch.autograd.grad(loss_T.sum(), logp_T)
    ratio_T = ratio_of(logp_T.detach(), rest[0])
    expected_T = -rest[1] * ratio_T * rest[2] * (clipped_T == 0)
    assert gradient_T.tolist() == pytest.approx(expected_T.tolist())


def test_decoupled_up_to_one_version_is_ppo_and_then_bounds_what_one_version_changes() -> None:
    given = tokens(6)
    bounds = {"clip_low": 0.2, "clip_high": 0.28}
    for age in (0.0, 1.0):
        age_T = torch.full((TOKENS,), age, dtype=torch.float64)
        fresh_T, clipped_T = corrected.decoupled(*given, age_T, **bounds, weight_max=5.0)
        ppo_T, ppo_clipped_T = policy_gradient.ppo(*given, **bounds)
        assert torch.equal(fresh_T, ppo_T) and torch.equal(clipped_T, ppo_clipped_T)
    age_T = torch.full((TOKENS,), 8.0, dtype=torch.float64)
    _, old_T = corrected.decoupled(*given, age_T, **bounds, weight_max=1e9)
    assert float(old_T.sum()) < float(clipped_T.sum())


def test_clipped_tokens_have_no_gradient_in_ppo_but_have_one_in_cispo() -> None:
    logp_T, *rest = tokens(2)
    loss_T, clipped_T = policy_gradient.ppo(logp_T, *rest, clip_low=0.2, clip_high=0.28)
    (gradient_T,) = torch.autograd.grad(loss_T.sum(), logp_T)
    assert (gradient_T[clipped_T == 1] == 0).all() and clipped_T.sum() > 5
    loss_T, clipped_T = policy_gradient.cispo(logp_T, *rest, ratio_max=1.5)
    (gradient_T,) = torch.autograd.grad(loss_T.sum(), logp_T)
    assert torch.allclose(gradient_T[clipped_T == 1], -1.5 * rest[1][clipped_T == 1])
    assert clipped_T.sum() > 5


@pytest.mark.parametrize("name", ["ppo", "cispo", "tis", "tis_sequence", "icepop", "decoupled"])
def test_on_policy_all_have_the_gradient_of_reinforce(name: str) -> None:
    logp_T, _, advantage_T, mask_T = tokens(3)
    known = (logp_T, logp_T.detach(), advantage_T, mask_T)
    found, plain = (
        torch.autograd.grad(CASES[n][0](*known)[0].sum(), logp_T)[0] for n in (name, "reinforce")
    )
    assert torch.allclose(found, plain)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("apart", [-1e4, 1e4])
def test_an_absurd_ratio_stays_finite(name: str, apart: float) -> None:
    logp_T, _, advantage_T, mask_T = tokens(1)
    loss_T, _ = CASES[name][0](logp_T, logp_T.detach() + apart, advantage_T, mask_T)
    (gradient_T,) = torch.autograd.grad(loss_T.sum(), logp_T)
    assert torch.isfinite(loss_T).all() and torch.isfinite(gradient_T).all()


@pytest.mark.parametrize("name", CASES)
def test_what_is_masked_changes_nothing(name: str) -> None:
    """Neither the loss and gradient of other tokens, nor its own, which are none."""
    found = []
    for shift in (0.0, 3.0):
        logp_T, behaviour_T, advantage_T, mask_T = tokens(8)
        moved_T = (logp_T.detach() - shift * (1.0 - mask_T)).requires_grad_()
        loss_T, clipped_T = CASES[name][0](moved_T, behaviour_T, advantage_T, mask_T)
        (gradient_T,) = torch.autograd.grad(loss_T.sum(), moved_T)
        assert not (loss_T * (1.0 - mask_T)).any() and not (clipped_T * (1.0 - mask_T)).any()
        assert not (gradient_T * (1.0 - mask_T)).any()
        found.append(torch.stack([loss_T.detach(), gradient_T, clipped_T]))
    assert torch.equal(found[0], found[1]) and found[0].any()
