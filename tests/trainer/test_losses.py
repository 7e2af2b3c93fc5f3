"""Objectives against slow references, and the head's gradient against autograd."""

from __future__ import annotations

import math
import random

import pytest
import torch

from services.trainer import losses
from services.trainer.head import token_logp


def tokens(seed: int = 0, count: int = 200) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(seed)
    logp_T = (-torch.rand(count, dtype=torch.float64) * 5).requires_grad_()
    behaviour_T = logp_T.detach() + torch.randn(count, dtype=torch.float64)
    advantage_T = torch.randn(count, dtype=torch.float64)
    mask_T = (torch.rand(count) < 0.8).double()
    return logp_T, behaviour_T, advantage_T, mask_T


def slow_ppo(logp: float, behaviour: float, advantage: float, mask: float) -> tuple[float, float]:
    ratio = math.exp(logp - behaviour)
    bound = min(max(ratio, 0.8), 1.28)
    if not mask:
        return 0.0, 0.0
    if bound * advantage < ratio * advantage:
        return -bound * advantage, 1.0
    return -ratio * advantage, 0.0


def slow_cispo(logp: float, behaviour: float, advantage: float, mask: float) -> tuple[float, float]:
    ratio = math.exp(logp - behaviour)
    return -min(ratio, 3.0) * advantage * logp * mask, float(ratio > 3.0) * mask


def test_ppo_is_its_reference() -> None:
    given = tokens()
    loss_T, clipped_T = losses.ppo(*given, clip_low=0.2, clip_high=0.28)
    expected = [slow_ppo(*row) for row in zip(*(g.tolist() for g in given), strict=True)]
    assert loss_T.tolist() == pytest.approx([e[0] for e in expected])
    assert clipped_T.tolist() == [e[1] for e in expected]


def test_cispo_is_its_reference() -> None:
    given = tokens(1)
    loss_T, clipped_T = losses.cispo(*given, ratio_max=3.0)
    expected = [slow_cispo(*row) for row in zip(*(g.tolist() for g in given), strict=True)]
    assert loss_T.tolist() == pytest.approx([e[0] for e in expected])
    assert clipped_T.tolist() == [e[1] for e in expected]


def test_clipped_tokens_have_no_gradient_in_ppo_but_have_one_in_cispo() -> None:
    logp_T, *rest = tokens(2)
    loss_T, clipped_T = losses.ppo(logp_T, *rest, clip_low=0.2, clip_high=0.28)
    (gradient_T,) = torch.autograd.grad(loss_T.sum(), logp_T)
    assert (gradient_T[clipped_T == 1] == 0).all() and clipped_T.sum() > 10
    loss_T, clipped_T = losses.cispo(logp_T, *rest, ratio_max=3.0)
    (gradient_T,) = torch.autograd.grad(loss_T.sum(), logp_T)
    assert torch.allclose(gradient_T[clipped_T == 1], -3.0 * rest[1][clipped_T == 1])
    assert clipped_T.sum() > 10


def test_on_policy_all_three_have_one_gradient() -> None:
    logp_T, _, advantage_T, mask_T = tokens(3)
    known = (logp_T, logp_T.detach(), advantage_T, mask_T)
    found = [
        torch.autograd.grad(loss_T.sum(), logp_T)[0]
        for loss_T, _ in (
            losses.reinforce(*known),
            losses.cispo(*known, ratio_max=3.0),
            losses.ppo(*known, clip_low=0.2, clip_high=0.2),
        )
    ]
    assert torch.allclose(found[0], found[1]) and torch.allclose(found[0], found[2])


def test_an_absurd_ratio_stays_finite() -> None:
    given = (torch.tensor([0.0]), torch.tensor([-1e4]), torch.tensor([1.0]), torch.tensor([1.0]))
    assert torch.isfinite(losses.ppo(*given, clip_low=0.2, clip_high=0.2)[0]).all()
    assert torch.isfinite(losses.ratio_of(*given[:2])).all()


def test_the_head_is_log_softmax_with_its_gradient() -> None:
    torch.manual_seed(0)
    chance = random.Random(0)
    rows, width, vocabulary = 150, 16, 50
    hidden = torch.randn(rows, width, requires_grad=True)
    weight = torch.randn(vocabulary, width, requires_grad=True)
    target = torch.tensor([chance.randrange(vocabulary) for _ in range(rows)])
    temperature = torch.tensor([chance.choice([0.5, 1.0, 1.7]) for _ in range(rows)])
    scale = torch.randn(rows)

    fast = token_logp(hidden, weight, target, temperature)
    logits = hidden @ weight.t() / temperature[:, None]
    slow = torch.log_softmax(logits, -1).gather(1, target[:, None])[:, 0]
    assert torch.allclose(fast, slow, atol=1e-5)
    fast_grads = torch.autograd.grad((fast * scale).sum(), (hidden, weight))
    slow_grads = torch.autograd.grad((slow * scale).sum(), (hidden, weight))
    for one, other in zip(fast_grads, slow_grads, strict=True):
        assert torch.allclose(one, other, atol=1e-4)
