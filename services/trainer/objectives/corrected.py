"""Policy gradients corrected for the age of an answer: for those of weights some versions old.

``ratio = exp(logp - behaviour)`` is between the trained weights and those that sampled: no third
forward pass for a policy between them. A is the advantage, sg() a constant.
"""

from __future__ import annotations

import torch
from torch import Tensor

from services.trainer.objectives.policy_gradient import Loss, clipped_gain
from services.trainer.objectives.ratio import MAX_LOG_RATIO, log_ratio_of, ratio_of


def tis(
    logp_T: Tensor,
    behaviour_T: Tensor,
    advantage_T: Tensor,
    mask_T: Tensor,
    *,
    ratio_max: float,
) -> Loss:
    """Truncated importance sampling per token (Ionides 2008; for language models Yao et al. 2025,
    "Your Efficient RL Framework Secretly Brings You Off-Policy RL Training"; the weight of IMPALA,
    arXiv 1802.01561, eq. 1): ``-sg(min(ratio, max)) A logp``.

    With one step on each batch this is CISPO with another bound.
    """
    weight_T = ratio_of(logp_T, behaviour_T).detach()
    loss_T = -weight_T.clamp(max=ratio_max) * advantage_T * logp_T * mask_T
    return loss_T, (weight_T > ratio_max).to(mask_T.dtype) * mask_T


def tis_sequence(
    logp_T: Tensor,
    behaviour_T: Tensor,
    advantage_T: Tensor,
    mask_T: Tensor,
    answer_T: Tensor,
    *,
    ratio_max: float,
) -> Loss:
    """Truncated importance sampling per answer: ``-sg(min(product of ratios, max)) A logp``.

    The unbiased weight of an answer is the product over its tokens; truncating it bounds the
    variance (Ionides 2008). Long answers get weights near 0 or the bound.
    """
    log_ratio_T, _ = log_ratio_of(logp_T, behaviour_T, mask_T, answer_T)
    weight_T = log_ratio_T.detach().clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    loss_T = -weight_T.clamp(max=ratio_max) * advantage_T * logp_T * mask_T
    return loss_T, (weight_T > ratio_max).to(mask_T.dtype) * mask_T


def icepop(
    logp_T: Tensor,
    behaviour_T: Tensor,
    advantage_T: Tensor,
    mask_T: Tensor,
    *,
    ratio_min: float,
    ratio_max: float,
) -> Loss:
    """IcePop (Ring-1T, arXiv 2510.18855): ``-sg(M(ratio)) A logp`` with M(k) = k within
    ``[min, max]``, else 0: tokens that the two policies see too differently teach nothing.

    The paper's M is times PPO's surrogate, whose ratio is 1 with one step on each batch. A token
    left out stays in the count of its batch.
    """
    ratio_T = ratio_of(logp_T, behaviour_T).detach()
    out_T = (ratio_T < ratio_min) | (ratio_T > ratio_max)
    weight_T = ratio_T.masked_fill(out_T, 0.0)
    return -weight_T * advantage_T * logp_T * mask_T, out_T.to(mask_T.dtype) * mask_T


def gspo(
    logp_T: Tensor,
    behaviour_T: Tensor,
    advantage_T: Tensor,
    mask_T: Tensor,
    answer_T: Tensor,
    *,
    clip_low: float,
    clip_high: float,
) -> Loss:
    """GSPO (arXiv 2507.18071, eq. 5 and 7): PPO's clip on the geometric mean of an answer's ratios,
    ``s = exp(mean(logp - behaviour))``.

    Every token bears its answer's loss; with normalisation by sequence that is the paper's. Bounds
    are much narrower than PPO's, for s moves little.
    """
    log_ratio_T, count_T = log_ratio_of(logp_T, behaviour_T, mask_T, answer_T)
    ratio_T = (log_ratio_T / count_T).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    gain_T, clipped_T = clipped_gain(ratio_T, advantage_T, clip_low=clip_low, clip_high=clip_high)
    return -gain_T * mask_T, clipped_T * mask_T


def decoupled(
    logp_T: Tensor,
    behaviour_T: Tensor,
    advantage_T: Tensor,
    mask_T: Tensor,
    age_T: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    weight_max: float,
) -> Loss:
    """Decoupled PPO (Hilton et al. 2021, arXiv 2110.00641; AReaL, arXiv 2505.24298) with AReaL's
    log-linear proximal policy: ``-sg(w) min(r A, clip(r, 1 - low, 1 + high) A)`` with
    ``r = exp(logp - sg(prox))`` and ``w = exp(prox - behaviour)``.

    The proximal policy is that of one version ago, between behaviour and trained weights by age:
    ``prox = behaviour + (age - 1) / age (logp - behaviour)``, ``age_T`` in versions. So the clip
    bounds what one version may change, however old the answer is, and no forward pass is needed for
    it. Up to age 1 this is PPO. Tokens with w above ``weight_max`` are left out and stay counted.
    """
    share_T = 1.0 - 1.0 / age_T.clamp(min=1.0)
    prox_T = behaviour_T + share_T * (logp_T.detach() - behaviour_T)
    weight_T = ratio_of(prox_T, behaviour_T)
    out_T = weight_T > weight_max
    gain_T, clipped_T = clipped_gain(
        ratio_of(logp_T, prox_T), advantage_T, clip_low=clip_low, clip_high=clip_high
    )
    loss_T = -weight_T.masked_fill(out_T, 0.0) * gain_T * mask_T
    return loss_T, torch.maximum(clipped_T, out_T.to(mask_T.dtype)) * mask_T
