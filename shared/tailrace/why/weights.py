"""A version from the weights back to what moved them.

Its manifest leads to its transaction, and that to its steps and receipts; of the trajectories only
those are read that moved it most.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from tailrace import orders, topics
from tailrace.errors import InvalidRecord
from tailrace.events import Canary, ModelUpdate, Receipt, Step, StepInput, Trajectory
from tailrace.log.base import Log, LogRecord
from tailrace.seek import records_at
from tailrace.settings import Common
from tailrace.stream import Decoder, read_all
from tailrace.topics import named
from tailrace.why import ledger
from tailrace.why.interaction import Spell, tokens
from tailrace.why.ledger import TRANSACTION_MS, where
from tailrace.why.records import Advantage, Ancestor, Mover, Probe, StepTaken, Weights
from tailrace.why.serving import State, serving, state

_ANCESTORS = 20
_MOVERS = 10
_SLACK_MS = 10_000
"""How far the clocks of two brokers may be apart."""


def weights(
    log: Log,
    decoder: Decoder,
    common: Common,
    version: int,
    *,
    now_ms: int,
    spell: Spell | None = None,
) -> Weights:
    """What went into a version, what came of it, and who serves it.

    Raises ValueError for a version that is not there, LogError, SettingsError for a key file that
    is none.
    """
    now = state(log, common, now_ms=now_ms)
    unsigned = ", or none that a trusted key signed" if common.trusted_keys else ""
    update = now.lineage.adapters.get(version) or orders.whole(
        now.lineage, version, common.model, unsigned
    )
    record = ledger.manifest(log, decoder, update, prefix=common.prefix)
    made_ms = update.created_ms if record is None else record.time_ms
    taken = ledger.steps_of(log, decoder, update, made_ms, now.rows, prefix=common.prefix)
    first_ms = taken[0][0].time_ms if taken else made_ms - TRANSACTION_MS
    inputs = [one for _, step in taken for one in step.inputs]
    chain = list(now.lineage.chain(version))[1:]
    if update.kind == "adapter" and update.base_version is not None:
        chain = list(now.lineage.chain(update.base_version))
    rewards = [one.reward for one in inputs if one.reward is not None]
    return Weights(
        model=common.model,
        version=version,
        row=now.rows[version],
        served=now.served == version,
        trained=now.trained == version,
        uri=update.uri,
        keyframe=update.keyframe_version,
        ancestors=[_ancestor(now, base) for base in chain[:_ANCESTORS]],
        older=max(0, len(chain) - _ANCESTORS),
        children=[row for row in now.rows.values() if row.base == version],
        ranges=sorted(update.ranges, key=lambda one: one.partition),
        first_feedback_ms=update.first_feedback_ms,
        last_feedback_ms=update.last_feedback_ms,
        outcomes=_outcomes(log, decoder, common, update, first_ms, made_ms),
        objectives=dict(sorted(Counter(one.objective or "" for one in inputs).items())),
        steps=[_step(at, step) for at, step in taken],
        canary=None if update.canary is None else _probe(update.canary, version, spell),
        serving=serving(log, decoder, common, now, version, made_ms),
        movers=_movers(log, decoder, common, taken),
        reward_mean=sum(rewards) / len(rewards) if rewards else None,
    )


def _outcomes(
    log: Log, decoder: Decoder, common: Common, update: ModelUpdate, first_ms: int, made_ms: int
) -> dict[str, int]:
    """By the receipts of its transaction, which lie between its first step and its manifest."""
    name = named(topics.RECEIPTS, common.prefix)
    first, last = (
        log.offsets_at(name, max(0, at_ms)) for at_ms in (first_ms - _SLACK_MS, made_ms + _SLACK_MS)
    )
    found = _counted(log, decoder, common, update.version, first, last)
    decided = any(one.end > one.start for one in update.ranges)
    if decided and not found and not any(log.starts(name).values()):
        # Nothing has expired: it is a copy, with other times.
        found = _counted(log, decoder, common, update.version, {}, log.ends(name))
    return dict(sorted(found.items()))


def _counted(
    log: Log,
    decoder: Decoder,
    common: Common,
    version: int,
    starts: Mapping[int, int],
    ends: Mapping[int, int],
) -> Counter[str]:
    name = named(topics.RECEIPTS, common.prefix)
    found: Counter[str] = Counter()
    for record in read_all(log, name, starts=starts, ends=ends, committed_only=True):
        try:
            event = decoder.decode(record)
        except InvalidRecord:
            continue
        assert isinstance(event, Receipt)
        mine = event.stage == "trainer" and event.model in (None, common.model)
        if mine and event.version == version:
            found[event.outcome] += 1
    return found


def _ancestor(now: State, base: ModelUpdate) -> Ancestor:
    row = now.rows[base.version]
    return Ancestor(
        version=base.version,
        kind=row.kind,
        created_ms=row.created_ms,
        withdrawn=row.withdrawn,
        children=[each.version for each in now.rows.values() if each.base == base.version],
    )


def _step(record: LogRecord, step: Step) -> StepTaken:
    return StepTaken(
        where=where(record, topics.STEPS),
        step=step.step,
        answers=len(step.inputs),
        lr=step.lr,
        reseeded=step.reseeded,
        code=step.code,
        torch=step.torch,
        figures=step.figures,
    )


def _probe(canary: Canary, version: int, spell: Spell | None) -> Probe:
    output = tokens(canary.output_tokens, canary.logprobs, [], spell)
    return Probe(
        prompt=[token.id for token in tokens(canary.prompt_tokens, None, [])], output=output
    )


class _Pull(NamedTuple):
    step: int
    one: StepInput
    advantage: Advantage


def _movers(
    log: Log, decoder: Decoder, common: Common, taken: list[tuple[LogRecord, Step]]
) -> list[Mover]:
    pulls = [
        _Pull(step.step, one, advantage)
        for _, step in taken
        for one, advantage in zip(step.inputs, ledger.advantages(step), strict=True)
        if advantage is not None
    ]
    pulls = sorted(pulls, key=lambda pull: -abs(pull.advantage.value))[:_MOVERS]
    name = named(topics.TRAJECTORIES, common.prefix)
    spots = [(name, pull.one.partition, pull.one.offset) for pull in pulls]
    # Side by side: one consumer that goes from spot to spot waits out a fetch at each.
    with ThreadPoolExecutor(_MOVERS) as pool:
        found = list(pool.map(lambda spot: records_at(log, [spot]).get(spot), spots))
    return [_mover(decoder, pull, record) for pull, record in zip(pulls, found, strict=True)]


def _mover(decoder: Decoder, pull: _Pull, record: LogRecord | None) -> Mover:
    trajectory = None
    if record is not None and record.offset == pull.one.offset:
        try:
            trajectory = decoder.decode(record)
        except InvalidRecord:
            trajectory = None
    told = trajectory if isinstance(trajectory, Trajectory) else None
    return Mover(
        interaction_id=None if told is None else told.interaction_id,
        choice=None if told is None else told.choice,
        trajectory_id=pull.one.trajectory_id,
        partition=pull.one.partition,
        offset=pull.one.offset,
        step=pull.step,
        objective=pull.one.objective,
        reward=pull.one.reward,
        advantage=pull.advantage,
    )
