"""What one token counts for in its step.

    token     every token of the step alike: a long answer counts for more (DAPO, arXiv 2503.14476,
              eq. 8)
    sequence  every answer alike, and its tokens alike in it (GRPO, arXiv 2402.03300, eq. 3)
    batch     a token counts 1 / answers: the sum over an answer's tokens, averaged over answers; no
              length is in it (Dr. GRPO, arXiv 2503.20783, with its constant left out)

Shares are of the whole step, so the sums of its micro-batches add up to the step's, however it is
split. A loss of a whole answer counts 1 / answers by any of them.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.trainer.objectives.names import WHOLE, Normalisation


def shares(
    tokens: Sequence[int], objectives: Sequence[str], normalisation: Normalisation
) -> list[float]:
    """What the loss of one token of each answer is multiplied by, from how many tokens of each
    answer count, and its objective. Raises ValueError."""
    answers, total = len(tokens), sum(tokens)
    if normalisation not in ("token", "sequence", "batch"):
        raise ValueError(f"unknown normalisation {normalisation!r}")
    found = []
    for count, objective in zip(tokens, objectives, strict=True):
        if objective in WHOLE or normalisation == "batch":
            found.append(1.0 / answers)
        elif normalisation == "sequence":
            found.append(1.0 / (answers * max(1, count)))
        else:
            found.append(1.0 / max(1, total))
    return found
