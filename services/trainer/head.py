"""The last layer and its log-softmax in one, a few rows at a time.

Logits of a vocabulary are the largest tensor of a step. Here they exist for :data:`ROWS` tokens at
once and are made again in the backward pass, so a step needs no memory for them and stays in cache.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

ROWS = 64


class TokenLogp(torch.autograd.Function):
    """``log_softmax(hidden @ weight.T / temperature)[target]``, in float32."""

    @staticmethod
    def forward(  # type: ignore[override]
        context: Any, hidden_TD: Tensor, weight_VD: Tensor, target_T: Tensor, temperature_T: Tensor
    ) -> Tensor:
        """Log-probability of each target, nats."""
        logp_T = torch.empty(len(target_T), dtype=torch.float32, device=hidden_TD.device)
        total_T = torch.empty_like(logp_T)
        for rows in _slices(len(target_T)):
            logits_RV = _logits(hidden_TD[rows], weight_VD, temperature_T[rows])
            total_T[rows] = torch.logsumexp(logits_RV, -1)
            chosen_R = logits_RV.gather(1, target_T[rows, None])[:, 0]
            logp_T[rows] = chosen_R - total_T[rows]
        context.save_for_backward(hidden_TD, weight_VD, target_T, temperature_T, total_T)
        return logp_T

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """d logp / d logits is ``onehot(target) - softmax``."""
        gradient_T = gradients[0]
        hidden_TD, weight_VD, target_T, temperature_T, total_T = context.saved_tensors
        to_hidden_TD = torch.empty_like(hidden_TD)
        to_logits_TV = torch.empty(
            len(target_T), len(weight_VD), dtype=hidden_TD.dtype, device=hidden_TD.device
        )
        for rows in _slices(len(target_T)):
            logits_RV = _logits(hidden_TD[rows], weight_VD, temperature_T[rows])
            gradient_R1 = gradient_T[rows, None]
            softmax_RV = logits_RV.sub_(total_T[rows, None]).exp_()
            change_RV = softmax_RV.mul_(-gradient_R1)
            change_RV.scatter_add_(1, target_T[rows, None], gradient_R1)
            to_logits_TV[rows] = change_RV.div_(temperature_T[rows, None])
            to_hidden_TD[rows] = to_logits_TV[rows] @ weight_VD
        return to_hidden_TD, to_logits_TV.t() @ hidden_TD, None, None


def token_logp(
    hidden_TD: Tensor, weight_VD: Tensor, target_T: Tensor, temperature_T: Tensor
) -> Tensor:
    """Log-probability of each target token at its temperature; differentiable in states and
    weight."""
    result: Tensor = TokenLogp.apply(hidden_TD, weight_VD, target_T, temperature_T)
    return result


def _logits(hidden_RD: Tensor, weight_VD: Tensor, temperature_R: Tensor) -> Tensor:
    return (hidden_RD @ weight_VD.t()).float().div_(temperature_R[:, None])


def _slices(count: int) -> list[slice]:
    return [slice(start, min(start + ROWS, count)) for start in range(0, count, ROWS)]
