"""A reward function as TRL's GRPO trainer takes it: is the last number the right one?

The prompt's tag ``solution`` comes as a column. An answer without one is none of its business.
"""

from __future__ import annotations

from collections.abc import Sequence
import re
from typing import Any


def reward(
    completions: Sequence[Sequence[dict[str, str]]],
    solution: Sequence[str | None] = (),
    **kwargs: Any,
) -> list[float | None]:
    """1.0 for the right number, 0.0 for another or none; None where nobody says what is right."""
    wanted = solution or [None] * len(completions)
    return [
        _grade(said[0]["content"], right) for said, right in zip(completions, wanted, strict=True)
    ]


def _grade(answer: str, right: str | None) -> float | None:
    if right is None:
        return None
    numbers = re.findall(r"-?\d+(?:\.\d+)?", answer)
    return float(bool(numbers) and float(numbers[-1]) == float(right))
