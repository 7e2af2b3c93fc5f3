"""After a restart or a rollback: back to a published version, bit for bit where that is possible.

    newest checkpoint that the log knows (or version 0 from the model folder)
      │ its Steps since, by the log: same inputs in the same order, same lr, same seeds
      v
    last published version ── digest equal? ── yes: go on as if nothing had happened
                                            └─ no:  reseeded: masters from the published bfloat16
                                                    weights, moments and baseline from the
                                                    checkpoint (without one: from nothing)
    neither, and its bytes cannot be read: the same with the version before it, and so on

Ranges and held records are those of the version arrived at; decided ids are the checkpoint's and
those of the receipts since. Nothing here writes to the log. Called once by
:mod:`services.trainer.trainer`, after its Publisher has fenced older trainers.
"""

from __future__ import annotations

from collections.abc import Sequence
import logging
from typing import get_args

import msgspec
import torch

from services.trainer import metrics
from services.trainer.answer import as_trained
from services.trainer.branch import Branch
from services.trainer.checkpoint import Checkpoints, Meta
from services.trainer.known import KnownIds, Memory
from services.trainer.learner import Learner, NonFinite
from services.trainer.ledger import Ledger, NoReplay
from services.trainer.lora import LoraPolicy
from services.trainer.objectives.names import Objective
from services.trainer.settings import Settings
from tailrace.errors import SettingsError, UpdateRefused
from tailrace.events import ModelUpdate, Step
from tailrace.weights.lineage import label_only
from tailrace.weights.tensors import Tensors, digest

_log = logging.getLogger(__name__)
_OBJECTIVES = get_args(Objective)
_NOT_ITS_BYTES = ("uri", "codec", "kind")
"""Refusals that may be this place's: a store that is away, a program older than the version. They
end a trainer: what others can read is not to be left."""


class Recovery(msgspec.Struct, frozen=True, kw_only=True):
    """Where a restart arrived."""

    replayed: int = 0
    """Steps taken again."""
    reseeded: str | None = None
    """Why the optimizer goes on from published weights; None: it goes on from its own."""
    optimizer_reset: bool = False
    """Reseeded without any checkpoint, or with an adapter, which then begins anew on the published
    weights: its moments begin at nothing."""
    checkpoint_version: int = 0
    """Of the checkpoint that it came from; the model folder is that of version 0."""
    unreadable: tuple[int, ...] = ()
    """Versions after the one arrived at, which nobody can make any more; oldest first."""
    unsaid: int = 0
    """Versions that were left earlier for the same reason, which no Step has said yet."""

    @property
    def figures(self) -> dict[str, float]:
        """What the first Step after it says."""
        found = {}
        if self.reseeded is not None:
            found["optimizer_reset"] = float(self.optimizer_reset)
            found["reseeded_from"] = float(self.checkpoint_version)
        if self.unreadable or self.unsaid:
            found["unreadable_versions"] = float(len(self.unreadable) + self.unsaid)
        return found


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """Where a replay begins, and what is to be taken again."""

    meta: Meta | None
    """None: the model folder."""
    state: dict[str, torch.Tensor]
    steps: dict[int, list[Step]]
    """By version."""


def recover(
    found: Branch,
    ledger: Ledger,
    learner: Learner,
    known: KnownIds,
    store: Checkpoints,
) -> Recovery:
    """Bring a fresh learner and its ids to the last version of a chain, or to the nearest before
    it, down to the branch's floor or the chain's first, that can be made.

    Raises UpdateRefused when neither the ledger nor published weights lead to one of them, or when
    it may be for this place alone that they do not; SettingsError when the weights are of another
    model than the folder's.
    """
    chain, untouched = found.chain, learner.policy.published()
    start = _start(chain, ledger, store)
    beyond = chain[-1].version + 1  # from there on the ledger was found not to lead
    missing = NoReplay("", "")
    with ledger.published(chain, untouched) as published:
        for end in range(len(chain), 0, -1):
            part, target = chain[:end], chain[end - 1].version
            if start.meta is not None and start.meta.version > target:
                start = _start(part, ledger, store)
            meta = start.meta
            arrived = Recovery(
                checkpoint_version=part[0].version if meta is None else meta.version,
                unreadable=tuple(update.version for update in chain[end:]),
                unsaid=found.unsaid,
            )
            try:
                if target < beyond:
                    replayed = _replay(part, start, ledger, learner)
                    ledger.remember(part, meta, known, start.steps)
                    metrics.REPLAYED.inc(replayed)
                    return msgspec.structs.replace(arrived, replayed=replayed)
            except NoReplay as error:
                missing = error
                beyond = beyond if error.version is None else error.version
            try:
                weights = published.at(target)
            except UpdateRefused as error:
                if error.reason in _NOT_ITS_BYTES or target == found.floor or end == 1:
                    raise
                metrics.UNREADABLE.inc()
                _log.error(
                    "unreadable version=%d: %s; no replay: %s; going on before it, what it decided "
                    "is decided again",
                    *(target, error, missing),
                )
                _take(learner, untouched)
                learner.steps = 0
                continue
            metrics.RESEEDS.labels(missing.reason).inc()
            _log.warning("reseeded version=%d reason=%s: %s", target, missing.reason, missing)
            _take(learner, weights, start)
            learner.steps = _last_step(part, start)
            ledger.remember(part, meta, known, start.steps)
            reset = meta is None or isinstance(learner.policy, LoraPolicy)
            return msgspec.structs.replace(arrived, reseeded=str(missing), optimizer_reset=reset)
    raise AssertionError("a chain has a version")


def _start(chain: Sequence[ModelUpdate], ledger: Ledger, store: Checkpoints) -> Start:
    found = store.newest((u.version, u.digest) for u in chain if u.digest is not None)
    meta, state = found if found is not None else (None, {})
    later = [u for u in chain if meta is None or u.version > meta.version]
    return Start(meta=meta, state=state, steps=ledger.steps(later))


def _replay(chain: Sequence[ModelUpdate], start: Start, ledger: Ledger, learner: Learner) -> int:
    """Take the steps from ``start`` to the chain's last version again; how many. Raises
    NoReplay."""
    meta, begin = start.meta, chain[0].version if start.meta is None else start.meta.version
    later = [u for u in chain if u.version > begin]
    todo = [step for update in later for step in start.steps.get(update.version, [])]
    if meta is None and chain[0].digest != digest(learner.policy.published()):
        why = "no checkpoint, and version 0 is not the model folder's"
        raise NoReplay("no_checkpoint", why, begin)
    _check(todo, ledger.settings, learner.policy.processes)
    inputs = ledger.inputs(todo)
    if meta is not None:
        try:
            learner.load_masters(start.state)
        except ValueError as error:
            raise NoReplay("checkpoint", str(error), begin) from None
        if digest(learner.policy.published()) != meta.digest:
            why = f"the checkpoint of version {begin} rounds to another digest"
            raise NoReplay("checkpoint", why, begin)
        restore(learner, meta, start.state)
        learner.steps = meta.step
    for update in later:
        for step in start.steps.get(update.version, []):
            given = [as_trained(inputs[i.partition, i.offset], i) for i in step.inputs]
            try:
                learner.step(given, lr=step.lr or 0.0)
            except NonFinite as error:
                why = f"step {step.step}: {error}"
                raise NoReplay("non_finite", why, step.version) from None
            learner.steps = step.step
            _log.info("replayed step=%d version=%d", step.step, step.version)
        if not label_only(update) and digest(learner.policy.published()) != update.digest:
            why = f"version {update.version} has another digest here"
            raise NoReplay("digest", why, update.version)
    return len(todo)


def _check(todo: Sequence[Step], settings: Settings, processes: int) -> None:
    if len(todo) > settings.replay_steps:
        raise NoReplay("steps", f"{len(todo)} steps are more than replay_steps")
    for step in todo:
        here = (settings.threads, str(torch.__version__), processes)
        if step.reseeded:
            raise NoReplay("reseeded", f"step {step.step} was itself reseeded", step.version)
        if (step.threads, step.torch, step.processes) != here:
            ran = f"{step.processes} processes, {step.threads} threads of {step.torch}"
            why = f"step {step.step} ran on {ran}"
            raise NoReplay("environment", why, step.version)
        for given in step.inputs:
            if given.objective is not None and given.objective not in _OBJECTIVES:
                why = f"step {step.step} trained by {given.objective!r}, which is unknown here"
                raise NoReplay("objective", why, step.version)


def _take(learner: Learner, weights: Tensors, start: Start | None = None) -> None:
    """Masters from published weights; moments and baseline from a checkpoint, or from nothing."""
    try:
        learner.policy.load(weights)
    except ValueError as error:
        raise SettingsError(f"trainer.model_dir: {error}") from None
    if start is None:
        restore(learner)
    else:
        restore(learner, start.meta, start.state)
    if isinstance(learner.policy, LoraPolicy):  # what they were of is in the weights now
        learner.load_moments({}, 0)


def restore(
    learner: Learner, meta: Meta | None = None, state: dict[str, torch.Tensor] | None = None
) -> None:
    """Moments and baseline of a checkpoint, or, without one, of an optimizer that has seen
    nothing."""
    learner.load_moments(state or {}, meta.updates if meta else 0)
    learner.baselines.load({} if meta is None else meta.baselines)


def meta_of(head: ModelUpdate, learner: Learner, memory: Memory) -> Meta:
    """What a checkpoint says of a learner that stands at ``head``: what :func:`restore` takes."""
    assert head.digest is not None
    return Meta(
        version=head.version,
        digest=head.digest,
        step=learner.steps,
        updates=learner.updates,
        baselines=learner.baselines.state(),
        memory=memory,
    )


def _last_step(chain: Sequence[ModelUpdate], start: Start) -> int:
    taken = [step.step for u in chain for step in start.steps.get(u.version, [])]
    return max(taken, default=start.meta.step if start.meta else 0)
