"""The last layer and its log-softmax in one.

Logits of a vocabulary are the largest tensor of a step. In a pass without a gradient they exist for
:data:`ROWS` tokens at once. Else there is one tensor of that size: logits become probabilities, and
those the gradient of the logits, in their place.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

ROWS = 512
"""Of logits where they are not kept: fewer would read the weights too often."""
_CACHED_ROWS = 64
"""Of logits that are normalised at once: they stay in a processor's cache meanwhile."""


class TokenLogp(torch.autograd.Function):
    """``log_softmax(hidden @ weight.T / temperature)[target]``, in float32. Backward once."""

    @staticmethod
    def forward(  # type: ignore[override]
        context: Any,
        hidden_TD: Tensor,
        weight_VD: Tensor,
        target_T: Tensor,
        temperature_T: Tensor,
        keep: bool,
    ) -> Tensor:
        """Log-probability of each target, nats. ``keep``: what the backward pass needs."""
        logp_T = torch.empty(len(target_T), dtype=torch.float32, device=hidden_TD.device)
        context.chance_TV = None
        for rows in _slices(len(target_T), len(target_T) if keep else ROWS):
            logits_RV = hidden_TD[rows] @ weight_VD.t()
            given = (logits_RV, target_T[rows], temperature_T[rows], logp_T[rows])
            for part in _slices(len(logits_RV), _CACHED_ROWS):
                _normalise(*(tensor[part] for tensor in given))
            if keep:
                context.chance_TV = logits_RV
        context.save_for_backward(hidden_TD, weight_VD, target_T, temperature_T, logp_T)
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
        to_hidden_TD: Tensor | None = None
        to_weight_VD: Tensor | None = None
        if context.needs_input_grad[0]:
            to_hidden_TD = to_logits_TV @ weight_VD
        if context.needs_input_grad[1]:
            to_weight_VD = to_logits_TV.t() @ hidden_TD
        return to_hidden_TD, to_weight_VD, None, None, None


def token_logp(
    hidden_TD: Tensor, weight_VD: Tensor, target_T: Tensor, temperature_T: Tensor
) -> Tensor:
    """Log-probability of each target token at its temperature; differentiable in states and
    weight."""
    # forward() cannot tell: within it gradients are off, and an input wants one all the same.
    keep = torch.is_grad_enabled() and (hidden_TD.requires_grad or weight_VD.requires_grad)
    result: Tensor = TokenLogp.apply(hidden_TD, weight_VD, target_T, temperature_T, keep)
    return result


def _normalise(logits_RV: Tensor, target_R: Tensor, temperature_R: Tensor, logp_R: Tensor) -> None:
    """Logits into probabilities, in place, and the targets' log-probabilities into ``logp_R``."""
    scaled_RV = logits_RV.float().div_(temperature_R[:, None])
    total_R1 = torch.logsumexp(scaled_RV, -1, keepdim=True)
    torch.sub(scaled_RV.gather(1, target_R[:, None]), total_R1, out=logp_R[:, None])
    logits_RV.copy_(scaled_RV.sub_(total_R1).exp_())


def _slices(count: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, count)) for start in range(0, count, max(1, size))]
