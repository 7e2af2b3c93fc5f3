"""The head's log-probabilities against log-softmax, and its gradient against autograd."""

from __future__ import annotations

import random

import pytest
import torch

from services.trainer import head
from services.trainer.head import token_logp


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


def test_a_pass_without_a_gradient_has_few_logits_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    widest: list[int] = []
    normalise = head._normalise

    def seen(logits: torch.Tensor, *rest: torch.Tensor) -> None:
        widest.append(logits.untyped_storage().nbytes() // (4 * logits.shape[1]))
        normalise(logits, *rest)

    monkeypatch.setattr(head, "_normalise", seen)
    rows = 2 * head.ROWS
    weight = torch.randn(5, 3, requires_grad=True)
    given = (torch.randn(rows, 3), weight, torch.zeros(rows, dtype=torch.long), torch.ones(rows))
    with torch.no_grad():
        token_logp(*given)
    assert max(widest) == head.ROWS
    widest.clear()
    token_logp(*given)
    assert max(widest) == rows
