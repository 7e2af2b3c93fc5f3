"""Why an answer was learnt from, and why a version is what it is: the log, asked backwards.

    why.gather(log, common, "acme:chat-1~01HF7YAT00000")      # an interaction: a Turn
    why.gather(log, common, "acme:chat-1~01HF7YAT00000!x")    # a feedback: the same, it marked
    why.gather(log, common, "42")                             # a version: Weights

The structs are :mod:`.records`. Called by ``tailrace why`` and the dashboard.
"""

from __future__ import annotations

from tailrace.why.records import (
    Advantage,
    Ancestor,
    Answer,
    Asked,
    Decision,
    Mover,
    Probe,
    Serving,
    StepTaken,
    Token,
    Trained,
    Turn,
    Weights,
    Where,
)

__all__ = [
    "Advantage",
    "Ancestor",
    "Answer",
    "Asked",
    "Decision",
    "Mover",
    "Probe",
    "Serving",
    "StepTaken",
    "Token",
    "Trained",
    "Turn",
    "Weights",
    "Where",
]
