"""Importance ratios: how much likelier the trained weights make what older ones sampled."""

from __future__ import annotations

import torch
from torch import Tensor

MAX_LOG_RATIO = 20.0
"""Beyond this exp() is of no use; every objective bounds the ratio long before."""


def ratio_of(logp_T: Tensor, behaviour_T: Tensor) -> Tensor:
    """``exp(logp - behaviour)`` of each token, safe against overflow."""
    return torch.exp((logp_T - behaviour_T).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO))


def sum_of(values_T: Tensor, answer_T: Tensor) -> Tensor:
    """The sum over each answer's tokens, given to every one of them; differentiable.

    ``answer_T`` numbers the answers; numbers may be left out.
    """
    sums_A = values_T.new_zeros(int(answer_T.max()) + 1).index_add(0, answer_T, values_T)
    return sums_A[answer_T]


def log_ratio_of(
    logp_T: Tensor, behaviour_T: Tensor, mask_T: Tensor, answer_T: Tensor
) -> tuple[Tensor, Tensor]:
    """The log-ratio of each whole answer (the sum over its tokens that count) and how many count,
    at least 1; both given to each of its tokens."""
    log_ratio_T = sum_of((logp_T - behaviour_T) * mask_T, answer_T)
    return log_ratio_T, sum_of(mask_T, answer_T).clamp(min=1.0)
