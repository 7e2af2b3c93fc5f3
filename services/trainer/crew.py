"""The trainer as several processes: the first one is the trainer, the others compute with it.

    torchrun --nproc-per-node N -m services.trainer ...

    first    decides, publishes, keeps checkpoints: a Trainer as ever          (Lead, LeadPolicy)
    others   do what it says, until it ends: parts of the model                (follow)
    each     reads its own partitions of the trajectories                      (consumers)

What concerns them all is told before it is done, so all do the same in the same order; a step is
told with its answers and the baselines it begins with. Checkpoints are whole: they are resumed on
however many processes. Nobody goes on without another: a process that ends ends all, and whoever
started them starts them again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
import contextlib
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor
import torch.distributed as dist

from services.trainer.answer import Answer
from services.trainer.batch import MicroBatch
from services.trainer.consumers import TOLD, Part
from services.trainer.figures import Figures
from services.trainer.learner import Learner, NonFinite
from services.trainer.policy import Policy
from services.trainer.ranks import Ranks, ShardedPolicy, whole_of
from services.trainer.settings import Settings
from tailrace.log.base import Log
from tailrace.weights.tensors import Tensors


class LeadPolicy(ShardedPolicy):
    """The policy of the first process; what it does the others do with it."""

    def __init__(self, folder: Path, *, ranks: Ranks, **same: Any) -> None:
        """As :class:`ShardedPolicy`."""
        self._together = True
        ranks.tell("begin")
        super().__init__(folder, ranks=ranks, **same)
        self._together = False

    @contextlib.contextmanager
    def told(self, what: str, *given: Any) -> Iterator[None]:
        """Within it the others do the same, unless they are at it already."""
        if self._together:
            yield
            return
        self._ranks.tell(what, *given)
        self._together = True
        try:
            yield
        finally:
            self._together = False

    def logp(self, batch: MicroBatch) -> Tensor:
        """As :class:`Policy`."""
        with self.told("logp", batch):
            return super().logp(batch)

    def load(self, published: Tensors) -> None:
        """As :class:`Policy`."""
        with self.told("load", published):
            super().load(published)

    def published(self) -> Tensors:
        """As :class:`Policy`."""
        with self.told("published"):
            return super().published()


class Lead(Learner):
    """The learner of the first process. Its :meth:`state` is whole, and so is what it loads."""

    policy: LeadPolicy

    def step(
        self,
        answers: Sequence[Answer],
        *,
        lr: float,
        objective: str | Sequence[str] | None = None,
    ) -> Figures:
        """As :class:`Learner`."""
        begun = (self.steps, self.baselines.state())
        with self.policy.told("step", begun, list(answers), lr, objective):
            return super().step(answers, lr=lr, objective=objective)

    def state(self) -> dict[str, Tensor]:
        """As :class:`Learner`; copies."""
        with self.policy.told("state"):
            return _whole(self.policy, super().state())

    def load_masters(self, state: dict[str, Tensor]) -> None:
        """As :class:`Learner`."""
        for name, parameter in self.policy.parameters.items():
            found = state.get(f"master.{name}")
            if found is None or found.shape != parameter.shape:
                raise ValueError(f"no master of {name} in this shape")
        with self.policy.told("load_masters"):
            super().load_masters(_parts(self.policy, state, ("master",)))

    def load_moments(self, state: dict[str, Tensor], updates: int) -> None:
        """As :class:`Learner`."""
        kinds = ("first", "second") if any(key.startswith("first.") for key in state) else ()
        with self.policy.told("load_moments", kinds, updates):
            super().load_moments(_parts(self.policy, state, kinds), updates)


def leading(ranks: Ranks) -> Callable[[Path, Settings], Learner]:
    """What makes the learner of the first process."""
    return lambda folder, settings: Lead(
        LeadPolicy(folder, ranks=ranks, **of_settings(settings)), shared(settings, ranks)
    )


def follow(ranks: Ranks, folder: Path, settings: Settings, log: Log) -> None:
    """Do as the first process says, until it says that it ends. Raises where it is gone; LogError
    where this one cannot read its partitions."""
    policy: ShardedPolicy | None = None
    learner: Learner | None = None
    part: Part | None = None
    while True:
        what, *given = ranks.heard()
        if what in ("consumer", "end") and part is not None:
            part.close()
        if what == "end":
            return
        if what == "begin":
            del policy, learner  # two models are not in memory
            policy = ShardedPolicy(folder, ranks=ranks, **of_settings(settings))
            learner = Learner(policy, shared(settings, ranks))
            continue
        if what == "consumer":
            part = Part(log.consumer(), ranks)
            continue
        if what in TOLD:
            assert part is not None
            part.told(what, *given)
            continue
        assert policy is not None and learner is not None
        if what == "step":
            (learner.steps, baselines), answers, lr, objective = given
            learner.baselines.load(baselines)
            # All of them raise it: they have the same sums.
            with contextlib.suppress(NonFinite):
                learner.step(answers, lr=lr, objective=objective)
        elif what == "logp":
            with torch.no_grad():
                policy.logp(given[0].to(policy.device))
        elif what == "load":
            policy.load(given[0])
        elif what == "published":
            policy.published()
        elif what == "state":
            _whole(policy, learner.state())
        elif what == "load_masters":
            learner.load_masters(_parts(policy, {}, ("master",)))
        elif what == "load_moments":
            kinds, updates = given
            learner.load_moments(_parts(policy, {}, kinds), updates)
        else:
            raise AssertionError(what)


def of_settings(settings: Settings) -> dict[str, Any]:
    """What a sharded policy takes; an adapter is trained by one process."""
    assert not settings.lora_rank
    return {
        "device": settings.device,
        "compute": settings.compute,
        "checkpointing": settings.activation_checkpointing,
    }


def shared(settings: Settings, ranks: Ranks) -> Settings:
    """With passes so small that a full batch has one for every process."""
    each = -(-settings.batch_answers // ranks.count)
    return msgspec.structs.replace(settings, micro_answers=min(settings.micro_answers, each))


def _whole(policy: Policy, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Whole tensors of the parts that all processes have."""
    return {
        key: whole_of(policy.parameters[key.partition(".")[2]], part) for key, part in state.items()
    }


def _parts(policy: Policy, state: dict[str, Tensor], kinds: Sequence[str]) -> dict[str, Tensor]:
    """This process's parts of what the first one has whole."""
    found = {}
    for kind in kinds:
        for name, parameter in policy.parameters.items():
            key = f"{kind}.{name}"
            whole = state.get(key)
            if whole is None:
                whole = torch.empty(parameter.shape, dtype=torch.float32)
            whole = whole.to(policy.device, torch.float32).contiguous()
            dist.broadcast(whole, 0)
            found[key] = policy.part(whole, parameter)
    return found
