"""The objectives by name, as settings and Steps write them. Free of torch, for the settings."""

from __future__ import annotations

from typing import Literal

Objective = Literal[
    "cispo",
    "ppo",
    "reinforce",
    "tis",
    "tis_sequence",
    "icepop",
    "gspo",
    "decoupled",
    "kto",
    "dpo",
    "sft",
]
"""Of an answer in a step."""

SINGLE = ("cispo", "ppo", "reinforce", "tis", "tis_sequence", "icepop", "gspo", "decoupled", "kto")
"""Need a reward: these learn from how far it lies from what was expected."""
WHOLE = ("kto", "dpo")
"""Have one loss for a whole answer, not one for each token."""
