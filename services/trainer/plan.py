"""What a step knows before its first gradient: constants of each answer, from all of them.

Objectives are of one token or answer each; whatever else goes into a loss is put together here,
once for the step, so the gradient does not depend on how the step is split into micro-batches.
DPO and KTO need where the trained weights stand on the whole step, the anchor where version 0
stands on each token: those are looked up by forward passes without a gradient, which a step that
has none of them does not take, and every process of several takes them all. Called by
:mod:`services.trainer.learner`.

Letters of shapes: A answers of the step, T answer tokens of a micro-batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgspec
import torch
from torch import Tensor

from services.trainer.answer import DPO, KTO, Answer
from services.trainer.batch import MicroBatch
from services.trainer.objectives.names import WHOLE
from services.trainer.objectives.preference import kl_of
from services.trainer.objectives.reduction import shares
from services.trainer.policy import Policy
from services.trainer.settings import Settings


class Plan(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """The constants of one step."""

    objectives: list[str]
    """Those that there are, each once."""
    objective_A: Tensor
    """Which of them."""
    share_A: Tensor
    """What the loss of one token is multiplied by."""
    anchor_A: Tensor
    """The same of its divergence from version 0, without its coefficient."""
    age_A: Tensor
    rival_A: Tensor
    """Of a pair, the other's log-ratio to the policy that sampled it."""
    reference_kl: float
    base: list[Tensor]
    """Log-probabilities under version 0, by micro-batch; empty where nothing is anchored."""


class Base:
    """The weights that the policy has now, held a second time: those of version 0. Of an adapter
    the one that adds nothing, on the model folder's weights."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._weights = {name: p.detach().clone() for name, p in policy.parameters.items()}

    @contextmanager
    def loaded(self) -> Iterator[None]:
        """The policy computes with them, without a gradient; afterwards with its own again."""
        with torch.no_grad(), self._policy.begun():
            for name, parameter in self._policy.parameters.items():
                parameter.copy_(self._weights[name])
            try:
                yield
            finally:
                self._policy.round()


def plan_of(
    policy: Policy,
    base: Base | None,
    answers: Sequence[Answer],
    batches: Sequence[MicroBatch],
    settings: Settings,
) -> Plan:
    """The plan of one step. Raises ValueError where answers of ``dpo`` do not come in twos."""
    objectives = [a.objective for a in answers]
    names = sorted(set(objectives))
    lengths = [len(a.tokens) for a in answers]
    alike = ["" for _ in answers]  # no loss of a whole answer
    found: list[Tensor] = []
    if base is not None:
        with base.loaded():
            found = [policy.logp(batch) for batch in batches]
    rival_A, reference_kl = _standing(policy, objectives, batches)

    def constant(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=policy.device)

    return Plan(
        objectives=names,
        objective_A=constant([names.index(name) for name in objectives]),
        share_A=constant(shares(lengths, objectives, settings.normalisation)),
        anchor_A=constant(shares(lengths, alike, settings.normalisation)),
        age_A=constant([a.age_versions or 0 for a in answers]),
        rival_A=rival_A,
        reference_kl=reference_kl,
        base=found,
    )


@torch.no_grad()
def _standing(
    policy: Policy, objectives: Sequence[str], batches: Sequence[MicroBatch]
) -> tuple[Tensor, float]:
    """(rival_A, KTO's reference point) under the weights as they are before the step."""
    device = policy.device
    whole_kto = [i for i, name in enumerate(objectives) if name == KTO]
    paired = [i for i, name in enumerate(objectives) if name == DPO]
    if len(paired) % 2:
        raise ValueError(f"{len(paired)} answers of dpo: each chosen one has its rejected one next")
    own_A = torch.zeros(len(objectives), device=device)
    rival_A = torch.zeros_like(own_A)
    kl_A = torch.zeros_like(own_A)
    whole_A = torch.tensor([name in WHOLE for name in objectives], device=device)
    for batch in batches if whole_kto or paired else ():
        if not bool(whole_A[batch.answer_T].any()):
            continue
        logp_T = policy.logp(batch)
        apart_T = (logp_T - batch.behaviour_T) * batch.mask_T
        own_A.index_add_(0, batch.answer_T, apart_T)
        kl_A.index_add_(0, batch.answer_T, kl_of(logp_T, batch.behaviour_T, batch.mask_T))
    chosen, rejected = paired[::2], paired[1::2]
    rival_A[chosen], rival_A[rejected] = own_A[rejected], own_A[chosen]
    return rival_A, float(kl_A[whole_kto].mean()) if whole_kto else 0.0
