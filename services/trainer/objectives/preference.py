"""Objectives of a preference, of a like, of a demonstration: for answers of any age.

The reference policy of DPO and KTO is the one that sampled the answer: its log-probabilities came
with it, so no second model is held, and what is learnt is bounded by how far it lies from that. A
loss of a whole answer is spread evenly over its tokens: their sum is the answer's. Sums over other
answers of the step are constants, taken before it (``rival_T``, ``reference_kl``), so the gradient
is the same whatever the micro-batches.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from services.trainer.objectives.policy_gradient import Loss
from services.trainer.objectives.ratio import log_ratio_of, ratio_of


def dpo(
    logp_T: Tensor,
    behaviour_T: Tensor,
    advantage_T: Tensor,
    mask_T: Tensor,
    answer_T: Tensor,
    rival_T: Tensor,
    *,
    beta: float,
) -> Loss:
    """DPO (Rafailov et al. 2023, arXiv 2305.18290, eq. 7): ``-log sigmoid(beta (chosen -
    rejected))`` of the two answers' log-ratios to the reference.

    ``advantage_T`` is above 0 in a chosen answer, below in a rejected one; ``rival_T`` is the
    log-ratio of the other answer of the pair, a constant. Each of the two has the pair's loss as
    its value and twice its own part of the pair's gradient: so the mean over answers is the mean
    over pairs, in value and gradient, and the two need not be in one micro-batch.
    """
    log_ratio_T, count_T = log_ratio_of(logp_T, behaviour_T, mask_T, answer_T)
    loss_T = -logsigmoid(beta * torch.sign(advantage_T) * (log_ratio_T - rival_T))
    return (2.0 * loss_T - loss_T.detach()) * mask_T / count_T, torch.zeros_like(mask_T)


def kto(
    logp_T: Tensor,
    behaviour_T: Tensor,
    advantage_T: Tensor,
    mask_T: Tensor,
    answer_T: Tensor,
    *,
    reference_kl: float,
    beta: float,
) -> Loss:
    """KTO (Ethayarajh et al. 2024, arXiv 2402.01306, eq. 8): ``|A| (1 - sigmoid(beta (log-ratio -
    z)))`` of a desirable answer, with the sign turned of an undesirable one; z is the divergence
    from the reference, a constant.

    Desirable is what has a positive advantage. Its size is the answer's weight: the paper wants the
    weights of both sides to add up alike, and advantages do, whatever share is liked. (Where one in
    five is, weights of 1 mostly push away, and nothing is learnt: ``docs/learning.md``.)
    """
    log_ratio_T, count_T = log_ratio_of(logp_T, behaviour_T, mask_T, answer_T)
    sign_T = torch.sign(advantage_T)
    value_T = torch.sigmoid(beta * sign_T * (log_ratio_T - reference_kl))
    return advantage_T.abs() * (1.0 - value_T) * mask_T / count_T, torch.zeros_like(mask_T)


def kl_of(logp_T: Tensor, behaviour_T: Tensor, mask_T: Tensor) -> Tensor:
    """What each token adds to KL(trained || behaviour) of its answer, estimated from the answer
    itself: ``ratio log ratio - ratio + 1``; no gradient. Its mean over answers is KTO's z.

    The paper estimates z from answers to other prompts, each of which would need its own forward
    pass under both policies. An answer sampled by the reference gives it by importance sampling,
    over the tokens that it went through; each term is at least 0, as z must be.
    """
    ratio_T = ratio_of(logp_T, behaviour_T).detach()
    return (ratio_T * ratio_T.log() - ratio_T + 1.0) * mask_T


def sft(logp_T: Tensor, behaviour_T: Tensor, advantage_T: Tensor, mask_T: Tensor) -> Loss:
    """Maximum likelihood of a demonstration: ``-logp``. Neither advantage nor behaviour is looked
    at: whatever is sent here is to be said."""
    return -logp_T * mask_T, torch.zeros_like(mask_T)
