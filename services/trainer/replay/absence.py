"""Whose answers a replay leaves out: those of an interaction, or of a user.

A Step names its inputs by place; interaction and user are in the trajectories that lie there.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.trainer.account import Place
from services.trainer.answer import DPO
from services.trainer.settings import Settings
from tailrace import topics
from tailrace.errors import InvalidRecord
from tailrace.events import Step, Trajectory
from tailrace.log.base import Log
from tailrace.stream import Decoder, read_all
from tailrace.topics import named
from tailrace.wire import Wire


def absent(
    log: Log, wire: Wire, settings: Settings, steps: Sequence[Step], names: Sequence[str]
) -> set[Place]:
    """The inputs of these steps that are of one of these interactions or users; of a preference,
    both answers.

    Raises ValueError naming those of whom nothing was trained, LogError.
    """
    if not names:
        return set()
    places = {(i.partition, i.offset) for step in steps for i in step.inputs}
    topic = named(topics.TRAJECTORIES, settings.prefix)
    starts: dict[int, int] = {}
    ends: dict[int, int] = {}
    for partition, offset in places:
        starts[partition] = min(offset, starts.get(partition, offset))
        ends[partition] = max(offset + 1, ends.get(partition, 0))
    decoder = Decoder(log, wire, prefix=settings.prefix)
    found: dict[Place, set[str]] = {}
    for record in read_all(log, topic, starts=starts, ends=ends):
        place = (record.partition, record.offset)
        if place not in places:
            continue
        try:
            trajectory = decoder.decode(record)
        except InvalidRecord:
            continue
        assert isinstance(trajectory, Trajectory)
        meant = {trajectory.interaction_id, trajectory.user} & {*names}
        if meant:
            found[place] = {name for name in meant if name is not None}
    unknown = [name for name in names if not any(name in whose for whose in found.values())]
    if unknown:
        raise ValueError(
            f"nothing of {', '.join(unknown)} is among the {len(places)} answers that were trained "
            "in this stretch: --without takes the full id of an answer, or a user as the client "
            "named it (what became of an answer: tailrace reward explain ID)"
        )
    return {*found} | _partners(steps, {*found})


def _partners(steps: Sequence[Step], out: set[Place]) -> set[Place]:
    """The other answer of each pair (chosen, then rejected) of which one is left out."""
    found: set[Place] = set()
    for step in steps:
        paired = [(i.partition, i.offset) for i in step.inputs if i.objective == DPO]
        for pair in zip(paired[::2], paired[1::2], strict=False):
            if out.intersection(pair):
                found.update(pair)
    return found
