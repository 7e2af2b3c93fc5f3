"""What a replay is asked for, and what it says at its end."""

from __future__ import annotations

from pathlib import Path

import msgspec

from services.trainer.replay.difference import canary_change, difference
from tailrace.events import ModelUpdate
from tailrace.weights.tensors import Tensors


class Refused(ValueError):
    """Why a stretch cannot be trained again, and what can be done."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be trained again."""

    begin: int
    """Version whose state it begins with."""
    end: int
    """Version that it ends with; the other is among those it was made from."""
    without: tuple[str, ...] = ()
    """Interactions and users whose answers are left out after ``begin``."""
    into: str
    """Prefix of what it publishes."""
    checkpoints: Path
    """Folder of the trainer's checkpoints."""
    reseed: bool = False
    """Begin with nothing but the version's published weights."""


class Distance(msgspec.Struct, frozen=True, kw_only=True):
    """How far the replay's last version is from the published one; None: that one cannot be read
    any more."""

    changed_weights: float | None = None
    """Share of weights that are not the same."""
    mean_abs_change: float | None = None
    """Over all weights."""
    max_relative_change: float | None = None
    """Largest change of a weight by its own size; weights that were 0 aside."""
    trained_mean_abs_change: float | None = None
    """Of the published version against the one that the replay began with: what training did."""
    canary_mean_abs_change: float | None = None
    """Of the log-probability of a token of the manifests' fixed line, nats."""
    canary_max_abs_change: float | None = None


class Result(Distance, frozen=True, kw_only=True):
    """What came of it."""

    begin: int = msgspec.field(name="from")
    to: int
    prefix: str
    origin: int
    """Version from which steps were taken: those up to ``from`` only to get there."""
    origin_kind: str
    """``checkpoint``, ``beginning``, ``reset`` or ``asked``."""
    steps: int
    """Taken after ``from``."""
    steps_skipped: dict[str, int]
    """After ``from``, by reason: ``empty``, ``non_finite``."""
    inputs: int
    """Of all steps after ``from``, as they were."""
    left_out: int
    """Of these inputs."""
    without: list[str]
    digest: str
    published_digest: str
    equal: bool
    first_difference: int | None
    """First version with another digest than the published one."""
    warnings: list[str]
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether it came out as it must: a whole replay ends on the published bits."""
        return self.equal or bool(self.without) or self.origin_kind == "asked"


def distance(
    published: Tensors | None,
    begin: Tensors,
    end: Tensors,
    original: ModelUpdate,
    made: ModelUpdate,
) -> Distance:
    """Of the version ``made``, with the weights ``end``, from the ``published`` one."""
    line = canary_change(original.canary, made.canary) or (None, None)
    if published is None:
        return Distance(canary_mean_abs_change=line[0], canary_max_abs_change=line[1])
    found = difference(published, end)
    return Distance(
        changed_weights=found.changed_weights,
        mean_abs_change=found.mean_abs_change,
        max_relative_change=found.max_relative_change,
        trained_mean_abs_change=difference(begin, published).mean_abs_change,
        canary_mean_abs_change=line[0],
        canary_max_abs_change=line[1],
    )


def in_words(result: Result) -> list[str]:
    """For people."""
    lines = [f"version {result.to} of this replay lies under the prefix {result.prefix}"]
    skipped = ", ".join(f"{count} {why}" for why, count in sorted(result.steps_skipped.items()))
    lines.append(f"{result.steps} steps taken again" + (f", skipped: {skipped}" if skipped else ""))
    if result.without:
        names = ", ".join(result.without)
        lines.append(f"left out: {result.left_out} of {result.inputs} answers ({names})")
    digests = f"{result.digest:.12}, published {result.published_digest:.12}"
    lines.append(f"digest {digests}: " + ("equal" if result.equal else "not equal"))
    if result.first_difference is not None:
        lines.append(f"the first version that differs is {result.first_difference}")
    if result.changed_weights is None:
        lines.append("the published version cannot be read any more: no weights to compare with")
    elif not result.equal:
        lines.append(
            f"{result.changed_weights:.2%} of the weights differ, by {result.mean_abs_change:.3g} "
            f"on average over all, at most by {result.max_relative_change:.3g} of their size; the "
            f"training itself moved them by {result.trained_mean_abs_change:.3g}"
        )
    if not result.equal and result.canary_mean_abs_change is not None:
        lines.append(
            f"log-probabilities of the fixed line: by {result.canary_mean_abs_change:.3g} nats a "
            f"token, at most {result.canary_max_abs_change:.3g}"
        )
    return lines
