"""Policy-gradient objectives as pure functions of tensors.

Every objective takes, per answer token: its log-probability under the weights being trained, under
the weights that sampled it, the advantage of its answer, and a mask (1: counts). It gives the loss
of each token, unreduced; the caller sums and divides by the tokens of the whole batch, so that
micro- batches add up. ``ratio = exp(logp - behaviour)`` throughout. Called by
:mod:`services.trainer.learner`; held against a slow reference by the tests.
"""

from __future__ import annotations

import torch
from torch import Tensor

MAX_LOG_RATIO = 20.0
"""Beyond this exp() is of no use; the ratio is truncated long before."""


def ratio_of(logp_T: Tensor, behaviour_T: Tensor) -> Tensor:
    """Importance ratio of each token, safe against overflow."""
    return torch.exp((logp_T - behaviour_T).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO))


def reinforce(
    logp_T: Tensor, behaviour_T: Tensor, advantage_T: Tensor, mask_T: Tensor
) -> tuple[Tensor, Tensor]:
    """REINFORCE (Williams 1992): ``-A logp``. No correction: for on-policy answers only.

    Returns (loss_T, clipped_T); nothing is ever clipped.
    """
    return -advantage_T * logp_T * mask_T, torch.zeros_like(mask_T)


def cispo(
    logp_T: Tensor,
    behaviour_T: Tensor,
    advantage_T: Tensor,
    mask_T: Tensor,
    *,
    ratio_max: float,
) -> tuple[Tensor, Tensor]:
    """CISPO (MiniMax-M1, arXiv 2506.13585, eq. 4-5) without a lower bound: ``-sg(min(ratio, max)) A
    logp``.

    The truncated ratio is a constant, so a clipped token still has a gradient, unlike PPO's.
    Returns (loss_T, clipped_T): clipped_T is 1 where the ratio was truncated.
    """
    ratio_T = ratio_of(logp_T, behaviour_T).detach()
    loss_T = -ratio_T.clamp(max=ratio_max) * advantage_T * logp_T * mask_T
    return loss_T, (ratio_T > ratio_max).to(mask_T.dtype) * mask_T


def ppo(
    logp_T: Tensor,
    behaviour_T: Tensor,
    advantage_T: Tensor,
    mask_T: Tensor,
    *,
    clip_low: float,
    clip_high: float,
) -> tuple[Tensor, Tensor]:
    """PPO-clip (Schulman et al. 2017, arXiv 1707.06347, eq. 7), bounds apart as in DAPO
    (arXiv 2503.14476): ``-min(ratio A, clip(ratio, 1 - low, 1 + high) A)``.

    Returns (loss_T, clipped_T): clipped_T is 1 where the bound took the gradient away.
    """
    ratio_T = ratio_of(logp_T, behaviour_T)
    free_T = ratio_T * advantage_T
    bound_T = ratio_T.clamp(1.0 - clip_low, 1.0 + clip_high) * advantage_T
    loss_T = -torch.minimum(free_T, bound_T) * mask_T
    return loss_T, (bound_T < free_T).to(mask_T.dtype) * mask_T
