"""Which trajectories were decided, within a horizon of log time. Pure.

A trajectory is its id. An id is kept until the newest record of its partition is a horizon past its
closing, or a little longer; whatever closed before that is refused as stale, so nothing is
forgotten that could come again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from services.trainer.answer import NOT_LINEAR
from tailrace.events import StepInput

State = Literal["untrained", "trained", "unknown"]
"""Of a trajectory and the revisions before it: no part was trained, some part was, or nobody
knows."""


class Known(msgspec.Struct, frozen=True, array_like=True):
    """One decided trajectory."""

    partition: int
    until_ms: int
    """Log time of its closing (or later)."""
    state: State
    reward: float | None = None
    """What its line was trained with in all, by policy gradient; None: it was not, or nobody
    knows."""


class Memory(msgspec.Struct, kw_only=True):
    """What :class:`KnownIds` knows, as a checkpoint keeps it."""

    ids: dict[str, Known] = {}
    newest_ms: dict[int, int] = {}
    """Log time of the newest record read, by partition."""

    def copy(self) -> Memory:
        """As it is now. What is known of one id is never changed, so a million are copied soon."""
        return Memory(ids=dict(self.ids), newest_ms=dict(self.newest_ms))


def state_after(outcome: str, reason: str | None) -> State | None:
    """What a decision says about a trajectory's line; None: nothing new (a duplicate).

    Also how ids are brought back from receipts.
    """
    if outcome == "duplicate":
        return None
    if outcome in ("trained", "compensated") or reason == "already_trained":
        return "trained"
    return "unknown" if reason == "predecessor_unknown" else "untrained"


def level(objective: str, reward: float | None) -> float | None:
    """What a later revision may be trained as the difference to: the reward, where the loss was
    linear in it."""
    return None if objective in NOT_LINEAR else reward


class KnownIds:
    """The decided ids of one chain of versions."""

    def __init__(self, horizon_ms: int) -> None:
        self._horizon_ms = horizon_ms
        self.memory = Memory()
        self._pruned_ms: dict[int, int] = {}
        """The newest log times when ids were forgotten last."""

    def state(self, trajectory_id: str) -> State | None:
        """None: not decided here."""
        known = self.memory.ids.get(trajectory_id)
        return None if known is None else known.state

    def reward(self, trajectory_id: str) -> float | None:
        """With which reward its line was trained; None: no difference to it can be trained."""
        known = self.memory.ids.get(trajectory_id)
        return None if known is None else known.reward

    def saw(self, partition: int, time_ms: int) -> None:
        """A record of this log time was read, or others of it were decided."""
        newest = self.memory.newest_ms
        newest[partition] = max(newest.get(partition, 0), time_ms)

    def beyond(self, partition: int, closed_ms: int) -> bool:
        """Whether something that closed then is before the horizon."""
        return closed_ms < self.memory.newest_ms.get(partition, 0) - self._horizon_ms

    def decided(
        self,
        trajectory_id: str,
        partition: int,
        until_ms: int,
        state: State,
        reward: float | None = None,
    ) -> None:
        """Keep an id."""
        self.memory.ids[trajectory_id] = Known(partition, until_ms, state, reward)

    def trained(self, inputs: Iterable[StepInput]) -> None:
        """What a Step says of ids that are known from their receipts."""
        for given in inputs:
            known = self.memory.ids.get(given.trajectory_id)
            if known is not None and known.state == "trained":
                reward = level(given.objective or "", given.reward)
                self.memory.ids[given.trajectory_id] = msgspec.structs.replace(known, reward=reward)

    def prune(self) -> None:
        """Forget what is before the horizon: to look for that takes a while, so not before it
        has moved by a hundredth of its length."""
        newest, least_ms = self.memory.newest_ms, self._horizon_ms / 100
        if all(ms - self._pruned_ms.get(p, 0) < least_ms for p, ms in newest.items()):
            return
        self._pruned_ms = dict(newest)
        old = [i for i, k in self.memory.ids.items() if self.beyond(k.partition, k.until_ms)]
        for trajectory_id in old:
            del self.memory.ids[trajectory_id]
