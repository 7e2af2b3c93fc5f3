"""The last layer and its log-softmax in one, a few rows at a time.

Logits of a vocabulary are the largest tensor of a step. In a pass that is not for training they
exist for :data:`ROWS` tokens at once. Else the probabilities of all tokens are kept, the one tensor
of that size: the backward pass makes its gradient in their place.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

ROWS = 64


class TokenLogp(torch.autograd.Function):
    """``log_softmax(hidden @ weight.T / temperature)[target]``, in float32. Backward once."""

    @staticmethod
    def forward(  # type: ignore[override]
        context: Any, hidden_TD: Tensor, weight_VD: Tensor, target_T: Tensor, temperature_T: Tensor
    ) -> Tensor:
        """Log-probability of each target, nats."""
        logp_T = torch.empty(len(target_T), dtype=torch.float32, device=hidden_TD.device)
        keep = any(context.needs_input_grad)
        size = (len(target_T) if keep else 0, len(weight_VD))
        chance_TV = torch.empty(size, dtype=hidden_TD.dtype, device=hidden_TD.device)
        for rows in _slices(len(target_T)):
            logits_RV = (hidden_TD[rows] @ weight_VD.t()).float().div_(temperature_T[rows, None])
            total_R = torch.logsumexp(logits_RV, -1)
            logp_T[rows] = logits_RV.gather(1, target_T[rows, None])[:, 0] - total_R
            if keep:
                chance_TV[rows] = logits_RV.sub_(total_R[:, None]).exp_()
        context.save_for_backward(hidden_TD, weight_VD, target_T, temperature_T, logp_T)
        context.chance_TV = chance_TV
        return logp_T

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """d logp / d logits is ``onehot(target) - softmax``."""
        hidden_TD, weight_VD, target_T, temperature_T, logp_T = context.saved_tensors
        to_logits_TV, context.chance_TV = context.chance_TV, None
        scale_T1 = (gradients[0] / temperature_T)[:, None]
        # From the float32 logp: of a probability near 1 a bfloat16 leaves nothing to 1.
        to_target_T1 = -torch.expm1(logp_T)[:, None] * scale_T1
        to_logits_TV.mul_(-scale_T1.to(hidden_TD.dtype))
        to_logits_TV.scatter_(1, target_T[:, None], to_target_T1.to(hidden_TD.dtype))
        to_hidden_TD = to_weight_VD = None
        if context.needs_input_grad[0]:
            to_hidden_TD = to_logits_TV @ weight_VD
        if context.needs_input_grad[1]:
            to_weight_VD = to_logits_TV.t() @ hidden_TD
        return to_hidden_TD, to_weight_VD, None, None


def token_logp(
    hidden_TD: Tensor, weight_VD: Tensor, target_T: Tensor, temperature_T: Tensor
) -> Tensor:
    """Log-probability of each target token at its temperature; differentiable in states and
    weight."""
    result: Tensor = TokenLogp.apply(hidden_TD, weight_VD, target_T, temperature_T)
    return result


def _slices(count: int) -> list[slice]:
    return [slice(start, min(start + ROWS, count)) for start in range(0, count, ROWS)]
