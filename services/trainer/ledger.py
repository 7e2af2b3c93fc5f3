"""After a restart or a rollback: back to a published version, bit for bit where that is possible.

    newest checkpoint that the log knows (or version 0 from the model folder)
      │ its Steps since, by the log: same inputs in the same order, same lr, same seeds
      v
    last published version ── digest equal? ── yes: go on as if nothing had happened
                                            └─ no:  reseeded: masters from the published bfloat16
                                                    weights, moments and baseline from the
                                                    checkpoint (without one: from nothing)

Ranges and held records are those of the last version's manifest; decided ids are the checkpoint's
and those of the receipts since. Nothing here writes to the log. Called once by
:mod:`services.trainer.trainer`, after its Publisher has fenced older trainers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import logging

import msgspec
import torch

from services.trainer import answer as answers
from services.trainer.answer import Answer, Limits
from services.trainer.baseline import Slice
from services.trainer.checkpoint import Checkpoints, Meta
from services.trainer.intake import Place
from services.trainer.known import KnownIds, Memory, state_after
from services.trainer.learner import Learner, NonFinite
from services.trainer.settings import Settings
from tailrace import topics
from tailrace.errors import InvalidRecord
from tailrace.events import ModelUpdate, Receipt, Step, Trajectory
from tailrace.log.base import Log
from tailrace.stream import Decoder, read_all
from tailrace.topics import named
from tailrace.weights.lineage import label_only
from tailrace.weights.publisher import Publisher
from tailrace.weights.store import Store
from tailrace.weights.subscriber import Subscriber
from tailrace.weights.tensors import Tensors, digest
from tailrace.wire import Wire

_log = logging.getLogger(__name__)
_CLOCK_SLACK_MS = 600_000
"""By how much a trainer's clock may be ahead of the broker's."""


class NoReplay(Exception):
    """Why the ledger cannot be replayed."""


class Recovery(msgspec.Struct, frozen=True, kw_only=True):
    """Where a restart arrived."""

    replayed: int = 0
    """Steps taken again."""
    reseeded: str | None = None
    """Why the optimizer goes on from published weights; None: it goes on from its own."""
    optimizer_reset: bool = False
    """Reseeded without any checkpoint: its moments begin at nothing."""
    checkpoint_version: int = 0
    """Of the checkpoint that it came from; the model folder is that of version 0."""


class Ledger:
    """Reads one model's history from the log."""

    def __init__(self, log: Log, wire: Wire, *, settings: Settings, limits: Limits) -> None:
        self._log, self._wire = log, wire
        self._decoder = Decoder(log, wire, prefix=settings.prefix)
        self._settings, self._limits = settings, limits

    def recover(
        self, chain: Sequence[ModelUpdate], learner: Learner, known: KnownIds, store: Checkpoints
    ) -> Recovery:
        """Bring a fresh learner and its ids to the last version of ``chain`` (oldest first).

        Raises UpdateRefused when neither the ledger nor the published weights lead there.
        """
        untouched = learner.policy.published()
        found = store.newest((u.version, u.digest) for u in chain if u.digest is not None)
        meta, state = found if found is not None else (None, {})
        later = [u for u in chain if meta is None or u.version > meta.version]
        steps = self._steps(later)
        self._remember(chain, meta, known)
        try:
            replayed = self._replay(chain, steps, learner, meta, state)
            return Recovery(
                replayed=replayed, checkpoint_version=meta.version if meta else chain[0].version
            )
        except NoReplay as error:
            reason = str(error)
        _log.warning("reseeded version=%d: %s", chain[-1].version, reason)
        learner.policy.load(self._published(chain, untouched))
        learner.load_moments(state, meta.updates if meta else 0)
        learner.baseline.slices = _slices(meta)
        taken = [s.step for found in steps.values() for s in found]
        learner.steps = max(taken, default=meta.step if meta else 0)
        return Recovery(
            reseeded=reason,
            optimizer_reset=meta is None,
            checkpoint_version=meta.version if meta else chain[0].version,
        )

    def _replay(
        self,
        chain: Sequence[ModelUpdate],
        steps: dict[int, list[Step]],
        learner: Learner,
        meta: Meta | None,
        state: dict[str, torch.Tensor],
    ) -> int:
        begin = chain[0].version if meta is None else meta.version
        later = [u for u in chain if u.version > begin]
        todo = [step for update in later for step in steps.get(update.version, [])]
        if meta is None and chain[0].digest != digest(learner.policy.published()):
            raise NoReplay("no checkpoint, and version 0 is not the model folder's")
        self._check(todo)
        inputs = self._inputs(todo)
        if meta is not None:
            try:
                learner.load_masters(state)
            except ValueError as error:
                raise NoReplay(str(error)) from None
            if digest(learner.policy.published()) != meta.digest:
                raise NoReplay(f"the checkpoint of version {meta.version} rounds to another digest")
            learner.load_moments(state, meta.updates)
            learner.baseline.slices = _slices(meta)
            learner.steps = meta.step
        for update in later:
            for step in steps.get(update.version, []):
                given = [inputs[i.partition, i.offset] for i in step.inputs]
                try:
                    learner.step(given, lr=step.lr or 0.0, objective=_objective(step))
                except NonFinite as error:
                    raise NoReplay(f"step {step.step}: {error}") from None
                learner.steps = step.step
                _log.info("replayed step=%d version=%d", step.step, step.version)
            if not label_only(update) and digest(learner.policy.published()) != update.digest:
                raise NoReplay(f"version {update.version} has another digest here")
        return len(todo)

    def _check(self, todo: Sequence[Step]) -> None:
        if len(todo) > self._settings.replay_steps:
            raise NoReplay(f"{len(todo)} steps are more than replay_steps")
        for step in todo:
            here = (self._settings.threads, str(torch.__version__))
            if step.reseeded:
                raise NoReplay(f"step {step.step} was itself reseeded")
            if (step.threads, step.torch) != here or step.processes != 1:
                raise NoReplay(f"step {step.step} ran on {step.threads} threads of {step.torch}")

    def _inputs(self, todo: Sequence[Step]) -> dict[Place, Answer]:
        """The answers of these steps, from the trajectories topic."""
        wanted = {(i.partition, i.offset): i.trajectory_id for s in todo for i in s.inputs}
        topic = named(topics.TRAJECTORIES, self._settings.prefix)
        starts, ends = _bounds(wanted)
        lows = self._log.starts(topic)
        found: dict[Place, Answer] = {}
        if all(lows.get(p, 0) <= offset for p, offset in starts.items()):
            for record in read_all(self._log, topic, starts=starts, ends=ends):
                place = (record.partition, record.offset)
                if place not in wanted:
                    continue
                try:
                    trajectory = self._decoder.decode(record)
                except InvalidRecord:
                    continue
                assert isinstance(trajectory, Trajectory)
                read = answers.read(record, trajectory, self._limits)
                if isinstance(read, Answer) and read.trajectory_id == wanted[place]:
                    found[place] = read
        for place in wanted:
            if place not in found:
                raise NoReplay(f"{topic}/{place[0]}/{place[1]} is gone")
        return found

    def _steps(self, versions: Sequence[ModelUpdate]) -> dict[int, list[Step]]:
        """The ledger of these versions, in order."""
        numbers = {u.version for u in versions}
        found: dict[int, list[Step]] = {}
        if not numbers:
            return found
        topic = named(topics.STEPS, self._settings.prefix)
        since_ms = min(u.created_ms for u in versions) - _CLOCK_SLACK_MS
        starts = self._log.offsets_at(topic, max(0, since_ms))
        for record in read_all(self._log, topic, starts=starts, committed_only=True):
            try:
                step = self._decoder.decode(record)
            except InvalidRecord as error:
                # If it was one of ours, its version will not come out right, and reseeds.
                _log.warning("invalid topic=%s offset=%d: %s", topic, record.offset, error)
                continue
            assert isinstance(step, Step)
            if step.model == self._settings.model and step.version in numbers:
                found.setdefault(step.version, []).append(step)
        return found

    def _remember(self, chain: Sequence[ModelUpdate], meta: Meta | None, known: KnownIds) -> None:
        """Put back the decided ids: the checkpoint's, then those of the receipts since."""
        head = chain[-1]
        horizon_ms = int(self._settings.horizon_s * 1000)
        if meta is not None:
            known.memory = msgspec.convert(msgspec.to_builtins(meta.memory), Memory)
            begin = next(u for u in chain if u.version == meta.version)
            since_ms, versions = (
                begin.created_ms,
                {u.version for u in chain if u.version > meta.version},
            )
        else:
            since_ms, versions = head.created_ms - horizon_ms, {u.version for u in chain}
            for r in head.ranges:
                # What is older than the oldest receipt read must not come in again.
                known.saw(r.partition, head.created_ms - _CLOCK_SLACK_MS)
        topic = named(topics.RECEIPTS, self._settings.prefix)
        starts = self._log.offsets_at(topic, max(0, since_ms - _CLOCK_SLACK_MS))
        for record in read_all(self._log, topic, starts=starts, committed_only=True):
            try:
                receipt = self._decoder.decode(record)
            except InvalidRecord:
                continue
            assert isinstance(receipt, Receipt)
            mine = receipt.stage == "trainer" and receipt.model == self._settings.model
            if not mine or receipt.version not in versions or not receipt.subject_id:
                continue
            state = state_after(receipt.outcome, receipt.reason)
            if state is not None:
                partition = receipt.source.partition
                # Its closing was before this receipt, so it is remembered long enough.
                known.decided(receipt.subject_id, partition, record.time_ms, state)

    def _published(self, chain: Sequence[ModelUpdate], base: Tensors) -> Tensors:
        """The weights of the last version as everybody else gets them."""
        settings = self._settings
        subscriber = Subscriber(self._log, self._wire, model=settings.model, prefix=settings.prefix)
        for update in chain:  # the publisher's word, not whatever else says to be of this model
            subscriber.lineage.add(update)
        try:
            begin = digest(base)
            version = 0 if chain[0].digest == begin else None
            store = Store(base, version, begin)
            subscriber.advance(store, chain[-1].version)
            return dict(store.tensors)
        finally:
            subscriber.close()


def open_publisher(log: Log, wire: Wire, settings: Settings) -> Publisher:
    """The publisher that the settings ask for. Raises SettingsError, LogError."""
    return Publisher(
        log,
        wire,
        model=settings.model,
        prefix=settings.prefix,
        keyframe_store=settings.keyframe_store,
        signing_key=settings.signing_key,
        trust=settings.trusted_keys,
    )


def _objective(step: Step) -> str:
    return (step.inputs[0].objective if step.inputs else None) or ""


def _slices(meta: Meta | None) -> dict[str, Slice]:
    """A copy: learning goes on in it."""
    if meta is None:
        return {}
    return {name: msgspec.structs.replace(s) for name, s in meta.baseline.items()}


def _bounds(places: Iterable[Place]) -> tuple[dict[int, int], dict[int, int]]:
    starts: dict[int, int] = {}
    ends: dict[int, int] = {}
    for partition, offset in places:
        starts[partition] = min(offset, starts.get(partition, offset))
        ends[partition] = max(offset + 1, ends.get(partition, 0))
    return starts, ends
