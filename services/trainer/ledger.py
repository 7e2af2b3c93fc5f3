"""One model's history as the log has it: Steps, their inputs, decided ids, weights.

Reads, writes nothing. Asked by :mod:`services.trainer.recovery` and by replays.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
import logging
import math
import sys

import msgspec

from services.trainer import answer as answers
from services.trainer.account import Place
from services.trainer.answer import Answer, Limits
from services.trainer.checkpoint import Meta
from services.trainer.known import KnownIds, state_after
from services.trainer.published import Published
from services.trainer.settings import Settings
from tailrace import topics
from tailrace.errors import InvalidRecord
from tailrace.events import ModelUpdate, Receipt, Step, StepInput, Trajectory
from tailrace.log.base import Log, LogRecord
from tailrace.stream import Decoder, read_all
from tailrace.topics import named
from tailrace.weights.tensors import Tensors
from tailrace.wire import Wire

_log = logging.getLogger(__name__)
CLOCK_SLACK_MS = 600_000
"""By how much a trainer's clock may be ahead of the broker's."""


class NoReplay(Exception):
    """Why the ledger cannot be replayed to ``version``, or any after it; None: to this one.

    ``reason`` is a word for the counter: ``no_checkpoint`` ``checkpoint`` ``inputs`` ``steps``
    ``reseeded`` ``environment`` ``objective`` ``non_finite`` ``digest``; the message says the rest.
    """

    def __init__(self, reason: str, detail: str, version: int | None = None) -> None:
        super().__init__(detail)
        self.reason, self.version = reason, version


class Ledger:
    """What became of each record, and in which order."""

    def __init__(self, log: Log, wire: Wire, *, settings: Settings, limits: Limits) -> None:
        self.settings = settings
        self._log, self._wire = log, wire
        self._decoder = Decoder(log, wire, prefix=settings.prefix)
        # What was trained was within the limits of its day.
        self._limits = msgspec.structs.replace(limits, max_tokens=sys.maxsize, max_reward=math.inf)

    def published(self, chain: Sequence[ModelUpdate], base: Tensors) -> Published:
        """The weights of a chain; ``base`` are those of the model folder."""
        return Published(self._log, self._wire, self.settings, chain, base)

    def steps(self, versions: Sequence[ModelUpdate]) -> dict[int, list[Step]]:
        """The Steps of these versions, in order."""
        numbers = {u.version for u in versions}
        found: dict[int, list[Step]] = {}
        if not numbers:
            return found
        topic = named(topics.STEPS, self.settings.prefix)
        since_ms = min(u.created_ms for u in versions) - CLOCK_SLACK_MS
        starts = self._log.offsets_at(topic, max(0, since_ms))
        for record in read_all(self._log, topic, starts=starts, committed_only=True):
            try:
                step = self._decoder.decode(record)
            except InvalidRecord as error:
                # If it was one of ours, its version will not come out right, and reseeds.
                _log.warning("invalid topic=%s offset=%d: %s", topic, record.offset, error)
                continue
            assert isinstance(step, Step)
            if step.model == self.settings.model and step.version in numbers:
                found.setdefault(step.version, []).append(step)
        return found

    def inputs(self, todo: Sequence[Step]) -> dict[Place, Answer]:
        """The answers of these steps, from the trajectories topic. Raises NoReplay when one of them
        is not there any more."""
        wanted = {(i.partition, i.offset): (i, s) for s in todo for i in s.inputs}
        topic = named(topics.TRAJECTORIES, self.settings.prefix)
        lows = self._log.starts(topic)
        for place, (_, step) in wanted.items():
            if place[1] < lows.get(place[0], 0):
                raise _gone(topic, place, step)
        found: dict[Place, Answer] = {}
        for record, trajectory in self._trajectories(wanted):
            place = (record.partition, record.offset)
            said = wanted[place][0]
            shown = said.objective == answers.SFT
            read = answers.read(record, trajectory, self._limits, shown=shown)
            if isinstance(read, Answer) and read.trajectory_id == said.trajectory_id:
                found[place] = read
        for place, (_, step) in wanted.items():
            if place not in found:
                raise _gone(topic, place, step)
        return found

    def remember(
        self,
        chain: Sequence[ModelUpdate],
        meta: Meta | None,
        known: KnownIds,
        steps: Mapping[int, Sequence[Step]],
    ) -> None:
        """Put back the decided ids: the checkpoint's, then those of the receipts since; of what was
        trained ``steps``, by version, say with which reward."""
        head = chain[-1]
        horizon_ms = int(self.settings.horizon_s * 1000)
        if meta is not None:
            known.memory = meta.memory.copy()
            begin = next(u for u in chain if u.version == meta.version)
            since_ms, versions = (
                begin.created_ms,
                {u.version for u in chain if u.version > meta.version},
            )
        else:
            since_ms, versions = head.created_ms - horizon_ms, {u.version for u in chain}
            for r in head.ranges:
                # What is older than the oldest receipt read must not come in again.
                known.saw(r.partition, head.created_ms - CLOCK_SLACK_MS)
        revisions: dict[Place, str] = {}
        topic = named(topics.RECEIPTS, self.settings.prefix)
        starts = self._log.offsets_at(topic, max(0, since_ms - CLOCK_SLACK_MS))
        for record in read_all(self._log, topic, starts=starts, committed_only=True):
            try:
                receipt = self._decoder.decode(record)
            except InvalidRecord:
                continue
            assert isinstance(receipt, Receipt)
            mine = receipt.stage == "trainer" and receipt.model == self.settings.model
            if not mine or receipt.version not in versions or not receipt.subject_id:
                continue
            state = state_after(receipt.outcome, receipt.reason)
            if state is not None:
                partition = receipt.source.partition
                # Its closing was before this receipt, so it is remembered long enough.
                known.decided(receipt.subject_id, partition, record.time_ms, state)
            if receipt.reason == "already_trained":
                revisions[receipt.source.partition, receipt.source.offset] = receipt.subject_id
        for update in chain:
            for step in steps.get(update.version, ()):
                known.trained(step.inputs)
        for record, trajectory in self._trajectories(revisions):
            if trajectory.trajectory_id == revisions[record.partition, record.offset]:
                # Its line was trained with what the one before it was.
                reward = known.reward(trajectory.supersedes or "")
                known.trained([_as_input(record, trajectory, reward)])

    def _trajectories(self, places: Collection[Place]) -> Iterator[tuple[LogRecord, Trajectory]]:
        return trajectories(self._log, self._decoder, self.settings.prefix, places)


def trajectories(
    log: Log, decoder: Decoder, prefix: str, places: Collection[Place]
) -> Iterator[tuple[LogRecord, Trajectory]]:
    """Those at these places that are there and can be read, each partition's in order."""
    topic = named(topics.TRAJECTORIES, prefix)
    starts, ends = _bounds(places)
    for record in read_all(log, topic, starts=starts, ends=ends) if places else ():
        if (record.partition, record.offset) not in places:
            continue
        try:
            trajectory = decoder.decode(record)
        except InvalidRecord:
            continue
        assert isinstance(trajectory, Trajectory)
        yield record, trajectory


def _as_input(record: LogRecord, trajectory: Trajectory, reward: float | None) -> StepInput:
    return StepInput(
        partition=record.partition,
        offset=record.offset,
        trajectory_id=trajectory.trajectory_id,
        reward=reward,
    )


def _gone(topic: str, place: Place, step: Step) -> NoReplay:
    return NoReplay("inputs", f"{topic}/{place[0]}/{place[1]} is gone", step.version)


def _bounds(places: Iterable[Place]) -> tuple[dict[int, int], dict[int, int]]:
    starts: dict[int, int] = {}
    ends: dict[int, int] = {}
    for partition, offset in places:
        starts[partition] = min(offset, starts.get(partition, offset))
        ends[partition] = max(offset + 1, ends.get(partition, 0))
    return starts, ends
