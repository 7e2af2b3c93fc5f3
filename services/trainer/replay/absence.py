"""Whose answers a replay leaves out: those of an interaction, or of a user.

A Step names its inputs by place; interaction and user are in the trajectories that lie there.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.trainer.account import Place
from services.trainer.answer import DPO
from services.trainer.ledger import trajectories
from services.trainer.settings import Settings
from tailrace.events import Step
from tailrace.log.base import Log
from tailrace.stream import Decoder
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
    decoder = Decoder(log, wire, prefix=settings.prefix)
    found: dict[Place, set[str]] = {}
    for record, trajectory in trajectories(log, decoder, settings.prefix, places):
        meant = {trajectory.interaction_id, trajectory.user} & {*names}
        if meant:
            found[record.partition, record.offset] = {name for name in meant if name is not None}
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
