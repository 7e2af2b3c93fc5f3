"""What the ledger says of a version: its steps, and how far each answer of a step pulled.

A version's steps, its receipts and its manifest are one transaction: where one of them lies in time
leads to the others. Where it does not, because the log was copied and has other times, all is read.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
import statistics

from tailrace import topics
from tailrace.chain import Place
from tailrace.errors import InvalidRecord
from tailrace.events import ModelUpdate, Step, StepInput
from tailrace.log.base import Log, LogRecord
from tailrace.stream import Decoder, read_all
from tailrace.topics import named
from tailrace.turn import SKEW_MS
from tailrace.why.records import Advantage, Trained, Where

TRANSACTION_MS = 120_000
"""No transaction is open longer: brokers end those of trainers after a minute."""
_IMITATED, _PAIRED = "sft", "dpo"


def where(record: LogRecord, topic: topics.Topic) -> Where:
    """The place of a record on a topic."""
    return Where(
        topic=topic.name,
        partition=record.partition,
        offset=record.offset,
        time_ms=record.time_ms,
    )


def manifest(
    log: Log, decoder: Decoder, update: ModelUpdate, *, prefix: str = ""
) -> LogRecord | None:
    """The record that a manifest came in."""
    name = named(topics.MODEL_UPDATES, prefix)
    near = log.offsets_at(name, max(0, update.created_ms - SKEW_MS))
    # Its own clock may be far from the broker's: then it lies before that.
    for starts, ends in ((near, None), (None, near)):
        for record in read_all(log, name, starts=starts, ends=ends, committed_only=True):
            if record.key == update.model.encode():
                try:
                    if decoder.decode(record) == update:
                        return record
                except InvalidRecord:
                    continue
    return None


def steps(
    log: Log, decoder: Decoder, since_ms: int, model: str, *, prefix: str = ""
) -> Iterator[tuple[LogRecord, Step]]:
    """Those of a model from a transaction at that time on, in order."""
    name = named(topics.STEPS, prefix)
    starts = log.offsets_at(name, max(0, since_ms - TRANSACTION_MS))
    for record in read_all(log, name, starts=starts, committed_only=True):
        if record.key == model.encode():
            try:
                step = decoder.decode(record)
            except InvalidRecord:
                continue
            assert isinstance(step, Step)
            yield record, step


def trained(
    log: Log,
    decoder: Decoder,
    wanted: Mapping[tuple[int, Place], int],
    model: str,
    known: Container[int],
    *,
    prefix: str = "",
) -> dict[tuple[int, Place], Trained]:
    """The steps that took trajectories. ``wanted``: version and place on ``trajectories``, to the
    append time of the receipt; ``known``: versions that there are: what others name is no end."""
    found: dict[tuple[int, Place], Trained] = {}
    for since_ms in (min(wanted.values()), 0) if wanted else ():
        newest = max(version for version, _ in wanted)
        for record, step in steps(log, decoder, since_ms, model, prefix=prefix):
            if step.version > newest and step.version in known:
                break
            for number, one in enumerate(step.inputs):
                key = (step.version, (one.partition, one.offset))
                if key in wanted:
                    found.setdefault(key, _trained(record, step, number))
            if len(found) == len(wanted):
                return found
    return found


def steps_of(
    log: Log,
    decoder: Decoder,
    update: ModelUpdate,
    made_ms: int,
    known: Container[int],
    *,
    prefix: str = "",
) -> list[tuple[LogRecord, Step]]:
    """Those of one version, whose manifest was appended then. ``known``: as of :func:`trained`."""
    found: list[tuple[LogRecord, Step]] = []
    for since_ms in (made_ms, 0):
        for record, step in steps(log, decoder, since_ms, update.model, prefix=prefix):
            if step.version > update.version and step.version in known:
                break
            if step.version == update.version:
                found.append((record, step))
        if found or update.first_step is None:
            break
    return found


def _trained(record: LogRecord, step: Step, number: int) -> Trained:
    one = step.inputs[number]
    return Trained(
        where=where(record, topics.STEPS),
        step=step.step,
        place=number,
        answers=len(step.inputs),
        objective=one.objective,
        weight=one.weight,
        age_versions=one.age_versions,
        reward=one.reward,
        before=one.before,
        advantage=advantages(step)[number],
        lr=step.lr,
        figures=step.figures,
    )


def advantages(step: Step) -> list[Advantage | None]:
    """How far each answer of a step pulled, in its order."""
    compared = [i.reward for i in step.inputs if i.reward is not None and _is_compared(i)]
    mean = statistics.fmean(compared) if compared else 0.0
    found: list[Advantage | None] = []
    in_pairs = 0
    for one in step.inputs:
        if one.reward is not None and one.before is not None:
            made = Advantage(value=one.reward - one.before, basis="revision")
        elif one.objective == _IMITATED:
            made = Advantage(value=1.0, basis="demonstration")
        elif one.objective == _PAIRED:  # the one that was preferred comes first
            made = Advantage(value=-1.0 if in_pairs % 2 else 1.0, basis="pair")
            in_pairs += 1
        elif one.reward is not None:
            made = Advantage(value=one.reward - mean, basis="step")
        else:
            found.append(None)
            continue
        found.append(made)
    return found


def _is_compared(one: StepInput) -> bool:
    return one.before is None and one.objective not in (_IMITATED, _PAIRED)
