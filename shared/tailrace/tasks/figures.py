"""How good answers were, in numbers. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
import math
from statistics import fmean, stdev

import msgspec

_Z = 1.959964
"""97.5 % of the normal distribution lie below."""


class Scored(msgspec.Struct, frozen=True, kw_only=True):
    """One task, its answer and what the verifier said."""

    task: str
    """Its id."""
    answer: str
    score: float | None = None
    reason: str | None = None
    """Why there is no score."""
    finish_reason: str | None = None
    versions: list[int] = []
    """Weight versions that made the answer, where they are known."""


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """One benchmark."""

    benchmark: str
    split: str
    versions: list[int]
    """Of all answers, each once."""
    tasks: int
    scored: int
    unscored: dict[str, int]
    """By reason."""
    mean: float | None
    """Of those that have a score; None: none has."""
    ci95: tuple[float, float] | None
    items: list[Scored]


def figures(benchmark: str, split: str, items: Sequence[Scored]) -> Figures:
    """The figures of some answers."""
    scores = [item.score for item in items if item.score is not None]
    return Figures(
        benchmark=benchmark,
        split=split,
        versions=sorted({version for item in items for version in item.versions}),
        tasks=len(items),
        scored=len(scores),
        unscored=dict(Counter(item.reason or "" for item in items if item.score is None)),
        mean=fmean(scores) if scores else None,
        ci95=interval(scores),
        items=list(items),
    )


def interval(scores: Sequence[float]) -> tuple[float, float] | None:
    """Bounds of the mean, at 95 %; None where nothing can be said.

    Scores from 0 to 1: Wilson's interval (1927), which holds for few tasks too, and where all pass;
    it is exact in form for 0 and 1 alone, and for what lies between too wide rather than too
    narrow. Others: mean and standard error under a normal distribution, from two scores on.

    >>> [round(bound, 3) for bound in interval([1.0] * 8 + [0.0] * 2)]
    [0.49, 0.943]
    """
    count = len(scores)
    if not count:
        return None
    mean = fmean(scores)
    if 0.0 <= min(scores) and max(scores) <= 1.0:
        scale = 1 + _Z**2 / count
        middle = (mean + _Z**2 / (2 * count)) / scale
        spread = mean * (1 - mean) / count + (_Z / (2 * count)) ** 2
        reach = _Z * math.sqrt(max(0.0, spread)) / scale
        return max(0.0, middle - reach), min(1.0, middle + reach)
    if count < 2:
        return None
    reach = _Z * stdev(scores) / math.sqrt(count)
    return mean - reach, mean + reach


def in_words(found: Figures) -> list[str]:
    """Lines for a person."""
    numbers = ", ".join(map(str, found.versions)) or "unknown"
    word = "versions" if len(found.versions) > 1 else "version"
    head = f"{found.benchmark} ({found.split}), {word} {numbers}: "
    if found.mean is None:
        head += "no score"
    else:
        head += f"{found.mean:.3f}"
        if found.ci95 is not None:
            head += f" [{found.ci95[0]:.3f}, {found.ci95[1]:.3f}]"
    lines = [f"{head}, {found.scored} of {found.tasks} tasks scored"]
    lines += [f"  no score: {count} {reason}" for reason, count in sorted(found.unscored.items())]
    return lines
