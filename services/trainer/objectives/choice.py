"""An objective by its name, with the bounds of the settings."""

from __future__ import annotations

import msgspec
from torch import Tensor

from services.trainer.objectives import corrected, policy_gradient, preference
from services.trainer.objectives.policy_gradient import Loss
from services.trainer.settings import Settings


class Tokens(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What is known of the answer tokens of one micro-batch."""

    logp_T: Tensor
    """Under the trained weights; differentiable."""
    behaviour_T: Tensor
    advantage_T: Tensor
    answer_T: Tensor
    """Which answer of the step."""
    age_T: Tensor
    """Of its answer, in versions."""
    rival_T: Tensor
    """DPO: the log-ratio of the other answer of the pair."""
    reference_kl: float
    """KTO: the divergence of the step's answers from what sampled them."""


def loss_of(objective: str, tokens: Tokens, mask_T: Tensor, settings: Settings) -> Loss:
    """(loss_T, clipped_T) of the tokens that the mask counts. Raises ValueError."""
    known = (tokens.logp_T, tokens.behaviour_T, tokens.advantage_T, mask_T)
    answer_T, s = tokens.answer_T, settings
    if objective == "cispo":
        return policy_gradient.cispo(*known, ratio_max=s.ratio_max)
    if objective == "ppo":
        return policy_gradient.ppo(
            *known, clip_low=s.clip_low, clip_high=s.clip_high, dual_clip=s.dual_clip
        )
    if objective == "reinforce":
        return policy_gradient.reinforce(*known)
    if objective == "tis":
        return corrected.tis(*known, ratio_max=s.tis_max)
    if objective == "tis_sequence":
        return corrected.tis_sequence(*known, answer_T, ratio_max=s.tis_max)
    if objective == "icepop":
        return corrected.icepop(*known, ratio_min=s.icepop_min, ratio_max=s.icepop_max)
    if objective == "gspo":
        return corrected.gspo(*known, answer_T, clip_low=s.gspo_low, clip_high=s.gspo_high)
    if objective == "decoupled":
        return corrected.decoupled(
            *known,
            tokens.age_T,
            clip_low=s.clip_low,
            clip_high=s.clip_high,
            weight_max=s.proximal_max,
        )
    if objective == "dpo":
        return preference.dpo(*known, answer_T, tokens.rival_T, beta=s.dpo_beta)
    if objective == "kto":
        return preference.kto(
            *known,
            answer_T,
            reference_kl=tokens.reference_kl,
            beta=s.kto_beta,
        )
    if objective == "sft":
        return preference.sft(*known)
    raise ValueError(f"unknown objective {objective!r}")
