"""The pull back to the base model: three estimates of the divergence from it, and their gradients.

Of Schulman 2020, "Approximating KL Divergence" (joschu.net/blog/kl-approx.html), for KL(trained ||
base) on tokens that the trained weights, or some not far from them, sampled. With ``d = logp -
base``: k1 = d, unbiased, of either sign; k2 = d^2 / 2, biased, of small variance; k3 = exp(-d) - 1
+ d, unbiased and never negative.
"""

from __future__ import annotations

import torch
from torch import Tensor

from services.trainer.objectives.names import Estimator
from services.trainer.objectives.ratio import MAX_LOG_RATIO


def divergence(logp_T: Tensor, base_T: Tensor, mask_T: Tensor, *, estimator: Estimator) -> Tensor:
    """The divergence at each token, nats: its value is the estimate, its gradient is to be
    minimised.

    k2's gradient, ``d`` times that of logp, is that of the KL itself where the tokens are the
    trained weights' own. k1 as it stands has the gradient of logp alone, which pulls nowhere; so it
    is given the score-function one, which is k2's. k3 (the form of GRPO, arXiv 2402.03300, eq. 4)
    has ``1 - exp(-d)``: bounded where a token has become likelier, steep where it has become rare.
    """
    apart_T = (logp_T - base_T).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    if estimator == "k1":
        slope_T = apart_T.detach()
        kl_T = slope_T * logp_T + (apart_T - slope_T * logp_T).detach()
    elif estimator == "k2":
        kl_T = 0.5 * apart_T * apart_T
    elif estimator == "k3":
        kl_T = torch.exp(-apart_T) - 1.0 + apart_T
    else:
        raise ValueError(f"unknown estimator {estimator!r}")
    return kl_T * mask_T
