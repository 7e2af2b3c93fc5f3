"""Policy gradients for answers that are nearly the trained weights' own.

``ratio = exp(logp - behaviour)`` throughout; A is the advantage, sg() a constant.
"""

from __future__ import annotations

import torch
from torch import Tensor

from services.trainer.objectives.ratio import ratio_of

Loss = tuple[Tensor, Tensor]
"""(loss_T, clipped_T): the loss of each token, and 1 where a bound changed its gradient."""


def reinforce(logp_T: Tensor, behaviour_T: Tensor, advantage_T: Tensor, mask_T: Tensor) -> Loss:
    """REINFORCE (Williams 1992): ``-A logp``. No correction: for on-policy answers only."""
    return -advantage_T * logp_T * mask_T, torch.zeros_like(mask_T)


def cispo(
    logp_T: Tensor,
    behaviour_T: Tensor,
    advantage_T: Tensor,
    mask_T: Tensor,
    *,
    ratio_max: float,
) -> Loss:
    """CISPO (MiniMax-M1, arXiv 2506.13585, eq. 4-5) without a lower bound: ``-sg(min(ratio, max)) A
    logp``.

    The bounded ratio is a constant, so a clipped token still has a gradient, unlike PPO's.
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
    dual_clip: float | None = None,
) -> Loss:
    """PPO-clip (Schulman et al. 2017, arXiv 1707.06347, eq. 7), bounds apart as in DAPO
    (arXiv 2503.14476): ``-min(ratio A, clip(ratio, 1 - low, 1 + high) A)``.

    With ``dual_clip`` c (Ye et al. 2019, arXiv 1912.09729) a negative A costs at most ``-c A``:
    else a token that has become much likelier since would outweigh all others.
    """
    ratio_T = ratio_of(logp_T, behaviour_T)
    gain_T, clipped_T = clipped_gain(
        ratio_T, advantage_T, clip_low=clip_low, clip_high=clip_high, dual_clip=dual_clip
    )
    return -gain_T * mask_T, clipped_T * mask_T


def clipped_gain(
    ratio_T: Tensor,
    advantage_T: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None = None,
) -> tuple[Tensor, Tensor]:
    """PPO's clipped surrogate, to be maximised, and 1 where it has no gradient for the bounds."""
    free_T = ratio_T * advantage_T
    gain_T = torch.minimum(free_T, ratio_T.clamp(1.0 - clip_low, 1.0 + clip_high) * advantage_T)
    if dual_clip is not None:
        floor_T = torch.maximum(gain_T, dual_clip * advantage_T)
        gain_T = torch.where(advantage_T < 0, floor_T, gain_T)
    return gain_T, (gain_T != free_T).to(ratio_T.dtype)
