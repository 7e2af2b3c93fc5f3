"""Objectives and their choices by name, as settings and Steps write them. Free of torch, for the
settings."""

from __future__ import annotations

from typing import Literal

Rewarded = Literal[
    "cispo",
    "ppo",
    "reinforce",
    "tis",
    "tis_sequence",
    "icepop",
    "gspo",
    "decoupled",
    "kto",
]
"""Learn from how far a reward lies from what was expected."""
Objective = Literal[Rewarded, "dpo", "sft"]
"""Of an answer in a step."""
Normalisation = Literal["token", "sequence", "batch"]
"""What a token counts for: see :mod:`services.trainer.objectives.reduction`."""
Estimator = Literal["k1", "k2", "k3"]
"""Of the divergence from the base model: see :mod:`services.trainer.objectives.anchor`."""

WHOLE = ("kto", "dpo")
"""Have one loss for a whole answer, not one for each token."""
