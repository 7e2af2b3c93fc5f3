"""Several processes that train one model, as ``torchrun`` starts them: the same steps as one.

    each    its own partitions, whole groups   (own)
    all     every answer of the step           (gather)  advantages, plan, baseline: each for itself
    each    its share of the micro-batches     (turns)   FSDP2 gathers layers, sums gradients
    each    its part of masters and moments    clipped by the norm of all parts
    first   the whole model, to publish        (ShardedPolicy.published, called by all)

Every process takes the same passes through the model, since each gathers its parts from all; who
has fewer micro-batches takes one again that counts nothing. A step adds up in another order than
in one process, so its weights are the same within rounding, not to the bit; with as many processes
they are. Letters: W processes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
import contextlib
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
import warnings

import msgspec
import torch
from torch import Tensor
import torch.distributed as dist
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.rendezvous import rendezvous
from torch.distributed.tensor import DTensor, distribute_tensor

from services.trainer.batch import MicroBatch
from services.trainer.learner import Learner
from services.trainer.policy import Policy, layers_of

_S = TypeVar("_S", bound=msgspec.Struct)
_T = TypeVar("_T")
_TIMEOUT = timedelta(minutes=10)
"""After this long without an answer of the others a process ends."""
_SILENCE = timedelta(days=365)
"""For how long there may be nothing to do. Who has ended is found at once."""


class Ranks:
    """This process among all. Made once, by :meth:`join`."""

    def __init__(self, mesh: DeviceMesh, word: Any) -> None:
        self.mesh = mesh
        self.number, self.count = mesh.get_rank(), mesh.size()
        self._word = word

    @classmethod
    def join(cls, device: str = "cpu", *, life: str = "0") -> Ranks:
        """Meet the other processes, by the environment that torchrun makes. Raises where there is
        none, or where they do not come. ``life``: how often torchrun has started them again."""
        kind = torch.device(device).type
        found, rank, count = next(rendezvous("env://", timeout=_TIMEOUT))
        found.set_timeout(_TIMEOUT)
        # torchrun keeps one store over its restarts: in it are the addresses of who has died.
        store = dist.PrefixStore(life, found)  # type: ignore[attr-defined]
        dist.init_process_group(
            "nccl" if kind == "cuda" else "gloo",
            store=store,
            rank=rank,
            world_size=count,
            timeout=_TIMEOUT,
        )
        if kind == "cuda":
            torch.cuda.set_device(dist.get_node_local_rank())
        word = dist.new_group(backend="gloo", timeout=_SILENCE)
        return cls(init_device_mesh(kind, (dist.get_world_size(),)), word)

    def leave(self) -> None:
        """The end; all do it."""
        dist.destroy_process_group()

    def own(self, partitions: Iterable[int]) -> list[int]:
        """Those that this process reads. Records of a session are in one: groups stay whole."""
        return [p for p in partitions if p % self.count == self.number]

    def tell(self, what: str, *given: Any) -> None:
        """Say to all others what is done next; for the first process."""
        dist.broadcast_object_list([(what, *given)], 0, self._word)

    def heard(self) -> tuple[Any, ...]:
        """What the first process says next, however long that takes. Raises where it is gone."""
        said: list[Any] = [None]
        dist.broadcast_object_list(said, 0, self._word)
        found: tuple[Any, ...] = said[0]
        return found

    def gather(self, mine: Sequence[_T]) -> list[_T]:
        """What every process has, the first one's first."""
        found: list[list[_T]] = [[] for _ in range(self.count)]
        dist.all_gather_object(found, list(mine), self._word)
        return [item for each in found for item in each]

    def turns(self, batches: Sequence[MicroBatch]) -> list[tuple[int, MicroBatch]]:
        """The passes of this process: micro-batches, and each one's place among them.

        The largest goes to who has the fewest tokens so far. All have equally many passes: where
        there is nothing left one counts for nothing.
        """
        loads = [0] * self.count
        shares: list[list[int]] = [[] for _ in loads]
        for index in sorted(range(len(batches)), key=lambda i: -len(batches[i].tree.ids_N)):
            least = loads.index(min(loads))
            loads[least] += len(batches[index].tree.ids_N)
            shares[least].append(index)
        idle = msgspec.structs.replace(batches[0], mask_T=torch.zeros_like(batches[0].mask_T))
        passes = max(len(share) for share in shares) - len(shares[self.number])
        return [(i, batches[i]) for i in sorted(shares[self.number])] + [(0, idle)] * passes

    def total(self, values: Sequence[float]) -> list[float]:
        """Sums over all processes."""
        sums_W = torch.tensor(list(values), dtype=torch.float64, device=self.mesh.device_type)
        dist.all_reduce(sums_W)
        found: list[float] = sums_W.tolist()
        return found


class ShardedPolicy(Policy):
    """A policy of which every process has a part: of parameters, masters and gradients.

    All processes call the same methods in the same order. Each loads the model folder whole once,
    at the start.
    """

    def __init__(self, folder: Path, *, ranks: Ranks, **same: Any) -> None:
        """As :class:`Policy`."""
        self._ranks = ranks
        self.processes = ranks.count
        super().__init__(folder, **same)

    def logp(self, batch: MicroBatch) -> Tensor:
        """As :class:`Policy`."""
        found = super().logp(batch)
        if not found.requires_grad:
            # No backward pass gives the gathered weights back: the next pass would take them again,
            # whatever has become of the parts.
            scorer: Any = self._scorer
            scorer.reshard()
        return found

    def norm(self) -> float:
        """Of the whole gradient."""
        squares = [float(g.double().square().sum()) for g in self.gradients()]
        return float(self._ranks.total([sum(squares)])[0] ** 0.5)

    def turns(self, batches: Sequence[MicroBatch]) -> list[tuple[int, MicroBatch]]:
        """Those of them that this process takes, see :meth:`Ranks.turns`."""
        return self._ranks.turns(batches)

    def total(self, sums: _S) -> _S:
        """What all processes added up."""
        made: Any = type(sums)
        found: _S = made(*self._ranks.total(msgspec.structs.astuple(sums)))
        return found

    def _trained(self, model: Any) -> dict[str, torch.nn.Parameter]:
        # Added up, not averaged: a loss is divided by what the whole step has.
        precision = MixedPrecisionPolicy(reduce_dtype=torch.float32)
        modules: list[Any] = [*layers_of(model), self._scorer]
        for module in modules:
            fully_shard(module, mesh=self._ranks.mesh, mp_policy=precision)
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo has no other
        return dict(model.named_parameters())

    def _own(self, tensor: Tensor) -> Tensor:
        assert isinstance(tensor, DTensor)
        return tensor.to_local().detach()

    def _start(self, parameter: Tensor) -> int:
        rows = -(-len(parameter) // self._ranks.count)  # of every process but the last ones
        return min(self._ranks.number * rows, len(parameter)) * (
            parameter.numel() // len(parameter)
        )

    def _whole(self, tensor: Tensor) -> Tensor:
        assert isinstance(tensor, DTensor)
        return tensor.full_tensor().detach()

    def part(self, whole: Tensor, of: Tensor) -> Tensor:
        assert isinstance(of, DTensor)
        # Every process has the whole: nothing is sent.
        spread = distribute_tensor(
            whole.to(self.device), of.device_mesh, of.placements, src_data_rank=None
        )
        return spread.to_local()


def save(learner: Learner, folder: Path) -> None:
    """Masters and moments, each process its part; all call it."""
    with _alone_or_not() as alone:
        state_dict_saver.save(_state(learner), checkpoint_id=folder, no_dist=alone)


def load(learner: Learner, folder: Path, updates: int) -> None:
    """The same back, on however many processes, after so many updates of the optimizer."""
    state = _state(learner)
    for name, master in learner.policy.masters.items():
        parameter = learner.policy.parameters[name]
        for moment in ("first", "second"):
            state.setdefault(f"{moment}.{name}", _like(parameter, torch.zeros_like(master)))
    with _alone_or_not() as alone:
        state_dict_loader.load(state, checkpoint_id=folder, no_dist=alone)
    found = {k: v.to_local() if isinstance(v, DTensor) else v for k, v in state.items()}
    learner.load_masters(found)
    learner.load_moments(found, updates)


@contextlib.contextmanager
def _alone_or_not() -> Iterator[bool]:
    """Whether this is the only process, which torch does not need to warn of."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield not dist.is_initialized()


def _state(learner: Learner) -> dict[str, Any]:
    parameters = learner.policy.parameters
    return {
        key: _like(parameters[key.partition(".")[2]], part) for key, part in learner.state().items()
    }


def whole_of(parameter: Tensor, part: Tensor) -> Tensor:
    """Of something with the shape of a parameter, from the parts of all; a copy, on the CPU."""
    found = _like(parameter, part)
    found = found.full_tensor() if isinstance(found, DTensor) else found
    return found.detach().to("cpu", copy=True)


def _like(parameter: Tensor, part: Tensor) -> Tensor:
    """A process's part of something with the shape of a parameter, as part of the whole."""
    if not isinstance(parameter, DTensor):
        return part
    return DTensor.from_local(
        part,
        parameter.device_mesh,
        parameter.placements,
        shape=parameter.shape,
        stride=parameter.stride(),
    )
