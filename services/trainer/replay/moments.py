"""What optimizer and baselines knew at a version, for a trainer that was reseeded from there.

A trainer that cannot come to a published version by its ledger takes masters from that version's
weights, and moments and baselines from its newest checkpoint, or begins them anew. The next Step
says so: ``reseeded``, with the figures ``optimizer_reset`` and ``reseeded_from``, the checkpoint's
version. A replay that passes that version keeps what it knew there; else a checkpoint must be left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from torch import Tensor

from services.trainer.learner import Learner
from services.trainer.ledger import NoReplay
from services.trainer.lora import LoraPolicy
from services.trainer.recovery import restore
from services.trainer.replay.origin import Origin, source
from tailrace.events import Step


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """Of one version."""

    state: dict[str, Tensor]
    updates: int
    baselines: dict[str, Any]


class Moments:
    """The moments that later steps of one replay may begin with. For one thread.

    ``stored``: the checkpoint of a version, if there is one; ``root``: the chain's first version,
    at which there were none yet.
    """

    def __init__(
        self,
        learner: Learner,
        steps: Iterable[Step],
        *,
        root: int,
        stored: Callable[[int], Origin | None],
    ) -> None:
        self._learner, self._root, self._stored = learner, root, stored
        self._wanted = {source(step) for step in steps if step.reseeded}
        self._kept: dict[int, Kept] = {}

    def passing(self, version: int) -> None:
        """The learner is at a version now."""
        if version not in self._wanted or version <= self._root:
            return
        # Not the masters: of these a reseeded trainer takes the rounding.
        state = self._learner.state().items()
        self._kept[version] = Kept(
            state={n: t.clone() for n, t in state if n.startswith(("first.", "second."))},
            updates=self._learner.updates,
            baselines=self._learner.baselines.state(),
        )

    def reseed(self, step: Step) -> None:
        """Do as the trainer did before this step. Raises NoReplay."""
        learner, version = self._learner, source(step)
        if version is None:
            why = "a checkpoint that it does not name"
            raise NoReplay("reseeded", _beyond(step, why), step.version)
        learner.policy.load(learner.policy.published())
        if version <= self._root:
            restore(learner)
        elif version in self._kept:
            kept = self._kept[version]
            learner.load_moments(kept.state, kept.updates)
            learner.baselines.load(kept.baselines)
        else:
            found = self._stored(version)
            if found is None:
                why = f"the checkpoint of version {version}, which is not there"
                raise NoReplay("reseeded", _beyond(step, why), step.version)
            restore(learner, found.meta, found.state)
        if isinstance(learner.policy, LoraPolicy):  # an adapter begins anew, its moments too
            learner.load_moments({}, 0)


def _beyond(step: Step, why: str) -> str:
    return (
        f"step {step.step} began with the moments of {why}; version {step.version} is the first "
        "after it to begin from"
    )
