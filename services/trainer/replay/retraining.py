"""One replay: from a version to another, under a private prefix, held against what was published.

Reads the log, a model folder and a trainer's checkpoints; writes under the private prefix only.
Called by :mod:`services.trainer.replay.__main__`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
import time

import msgspec
from safetensors import SafetensorError

from services.trainer.answer import Limits
from services.trainer.canary import CanaryLine
from services.trainer.demonstrations import limits_of
from services.trainer.learner import Learner
from services.trainer.ledger import Ledger, NoReplay
from services.trainer.lora import learner_of
from services.trainer.published import Published
from services.trainer.replay.absence import absent
from services.trainer.replay.course import Course, doubts, seeded
from services.trainer.replay.edition import Edition, receipts_of, vacant
from services.trainer.replay.moments import Moments
from services.trainer.replay.origin import Origin, Way, checkpoint, placed, saved, way
from services.trainer.replay.rerun import Rerun
from services.trainer.replay.result import Refused, Request, Result, distance
from services.trainer.settings import Settings
from tailrace import versions
from tailrace.errors import SettingsError, UpdateRefused
from tailrace.events import ModelUpdate, Step
from tailrace.log.base import Log
from tailrace.weights.lineage import label_only
from tailrace.weights.tensors import Tensors, digest
from tailrace.wire import Wire

_SHOWN = 8
"""Versions that an error names at most."""
Say = Callable[[str], None]


def retrain(
    log: Log,
    wire: Wire,
    settings: Settings,
    request: Request,
    *,
    wall_ms: Callable[[], int],
    say: Say,
) -> Result:
    """Train a stretch again. Raises Refused, SettingsError for a model folder or key that is none,
    UpdateRefused, LogError."""
    began_s = time.monotonic()
    chain, after = _chain(log, wire, settings, request)
    vacant(log, settings, request.into)
    unread = Limits(model=settings.model, vocabulary=0, max_tokens=0, max_reward=0.0)
    ledger = Ledger(log, wire, settings=settings, limits=unread)
    found = _way(chain, ledger, request)
    todo = _steps(found, after)
    out = absent(log, wire, settings, todo, request.without)
    settings = seeded(settings, _steps(found, chain))
    learner, canary, limits = _learner(settings)
    ledger = Ledger(log, wire, settings=settings, limits=limits)
    with ledger.published(chain, learner.policy.published()) as published:
        origin = _origin(found, learner, published, chain, request)
        before = [u for u in chain if origin.version < u.version <= request.begin]
        steps = _steps(found, before) + todo
        warnings = doubts(steps, settings)
        say(f"begins at version {origin.version} ({origin.kind}); {len(steps)} steps")
        for warning in warnings:
            say(f"warning: {warning}")
        try:
            course = _course(ledger, learner, settings, steps, chain, request, say)
            course.passing(origin.version)
            for update in before:
                _again(update, found, course, learner)
        except NoReplay as error:
            raise Refused(f"{error}. {_advice(chain, request)}") from None
        base = learner.policy.published()
        with Edition(log, wire, settings, request.into) as edition:
            edition.begin(chain[: -len(after)], base, _folder(settings), now_ms=wall_ms())
            run = Rerun(edition, course, learner.policy, canary, out, wall_ms=wall_ms, say=say)
            receipts = receipts_of(log, wire, settings, after)
            for update in after:
                try:
                    run.version(update, found.steps.get(update.version, []), receipts)
                except NoReplay as error:
                    raise Refused(f"{error}. {_advice(chain, request)}") from None
            end, made, original = edition.tensors, edition.head, chain[-1]
        assert made.digest is not None and original.digest is not None
        equal = made.digest == original.digest
        far = distance(end if equal else _read(published, original), base, end, original, made)
    return Result(
        begin=request.begin,
        to=request.end,
        prefix=request.into,
        origin=origin.version,
        origin_kind=origin.kind,
        steps=run.taken,
        steps_skipped=run.skipped,
        inputs=sum(len(step.inputs) for step in todo),
        left_out=len(out),
        without=list(request.without),
        digest=made.digest,
        published_digest=original.digest,
        equal=equal,
        first_difference=run.first_difference,
        warnings=[*warnings, *run.warnings],
        seconds=round(time.monotonic() - began_s, 2),
        **msgspec.structs.asdict(far),
    )


def _chain(
    log: Log, wire: Wire, settings: Settings, request: Request
) -> tuple[list[ModelUpdate], list[ModelUpdate]]:
    """The history of the last version, oldest first, and what of it comes after the first one."""
    lineage, _ = versions.read(log, wire, settings)
    if request.end not in lineage.updates:
        raise Refused(f"there is no version {request.end} of {settings.model} on this log")
    chain = [*lineage.chain(request.end)][::-1]
    numbers = [u.version for u in chain]
    if request.begin not in numbers:
        others = ", ".join(str(number) for number in numbers[-_SHOWN - 1 : -1])
        raise Refused(
            f"version {request.end} was not made from version {request.begin}; the versions before "
            f"it are {others or 'none'} (tailrace models lists bases)"
        )
    if request.begin >= request.end:
        raise Refused("--from-version must be before --to-version")
    return chain, chain[numbers.index(request.begin) + 1 :]


def _way(chain: Sequence[ModelUpdate], ledger: Ledger, request: Request) -> Way:
    if not request.reseed:
        return way(chain, request.begin, ledger, request.checkpoints)
    asked = Origin(version=request.begin, kind="asked")
    return Way(origins=[asked], steps=ledger.steps([u for u in chain if u.version > asked.version]))


def _origin(
    found: Way,
    learner: Learner,
    published: Published,
    chain: Sequence[ModelUpdate],
    request: Request,
) -> Origin:
    try:
        return placed(found, learner, published)
    except ValueError as error:
        why = f"no state of version {request.begin} to train on from: {error}"
        raise Refused(f"{why}. {_advice(chain, request)}") from None


def _course(
    ledger: Ledger,
    learner: Learner,
    settings: Settings,
    steps: Sequence[Step],
    chain: Sequence[ModelUpdate],
    request: Request,
    say: Say,
) -> Course:
    """Raises NoReplay where an input is gone."""

    def stored(version: int) -> Origin | None:
        return checkpoint(request.checkpoints, [u for u in chain if u.version == version])

    moments = Moments(learner, steps, root=chain[0].version, stored=stored)
    return Course(learner, settings, ledger.inputs(steps), moments, total=len(steps), say=say)


def _again(update: ModelUpdate, found: Way, course: Course, learner: Learner) -> None:
    """The steps up to one version once more, on the way to the first one. Raises NoReplay."""
    for step in found.steps.get(update.version, []):
        if not isinstance(why := course.take(step), Step):
            raise NoReplay(why, f"step {step.step} of version {step.version} is {why} here")
    course.passing(update.version)
    here = digest(learner.policy.published())
    if not label_only(update) and here != update.digest:
        why = (
            f"version {update.version} has the digest {here:.12} here, published is "
            f"{update.digest or '':.12}: settings, code or machine are not those of the trainer"
        )
        raise NoReplay("digest", why)


def _advice(chain: Sequence[ModelUpdate], request: Request) -> str:
    there = saved(request.checkpoints, chain[:-1])
    shown = ", ".join(str(number) for number in there[-_SHOWN:])
    return (
        f"In {request.checkpoints} are checkpoints of "
        + (f"versions {shown}: --from-version may be one of these" if there else "none of them")
        + "; --checkpoints names another folder; --reseed begins with the weights of version "
        f"{request.begin} alone, and ends on another digest"
    )


def _steps(found: Way, updates: Sequence[ModelUpdate]) -> list[Step]:
    return [step for update in updates for step in found.steps.get(update.version, [])]


def _read(published: Published, update: ModelUpdate) -> Tensors | None:
    try:
        return published.at(update.version)
    except UpdateRefused:
        return None


def _folder(settings: Settings) -> Path:
    assert settings.model_dir is not None
    return settings.model_dir


def _learner(settings: Settings) -> tuple[Learner, CanaryLine, Limits]:
    """With version 0, and what it can take."""
    folder = _folder(settings)
    try:
        learner = learner_of(folder, settings)
        vocabulary = learner.policy.vocabulary
        limits = limits_of(settings, folder, vocabulary)
        canary = CanaryLine(folder, vocabulary)
    except (OSError, ValueError, SafetensorError) as error:
        raise SettingsError(f"trainer.model_dir: {error}") from error
    return learner, canary, limits
