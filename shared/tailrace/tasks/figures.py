"""How good answers were, in numbers. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
import math

import msgspec

from tailrace import estimates


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
        mean=estimates.mean(scores).value,
        ci95=interval(scores),
        items=list(items),
    )


def interval(scores: Sequence[float]) -> tuple[float, float] | None:
    """Bounds of the mean, at 95 %; None where nothing can be said.

    Scores from 0 to 1: Wilson's interval, which holds for few tasks too, and where all pass.
    Others: Student's, from two scores on (:mod:`tailrace.estimates`).

    >>> [round(bound, 3) for bound in interval([1.0] * 8 + [0.0] * 2)]
    [0.49, 0.943]
    """
    if not scores:
        return None
    if 0.0 <= min(scores) and max(scores) <= 1.0:
        return estimates.wilson(math.fsum(scores), len(scores))
    found = estimates.mean(scores)
    return None if found.low is None or found.high is None else (found.low, found.high)


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
