"""One optimizer step: answers in, weights moved, figures out. Deterministic.

Same weights, moments, baselines, answers in the same order, settings, threads and torch: same bits
afterwards. That is what lets :mod:`services.trainer.recovery` replay a log. There is no chance in a
step (no dropout, no sampling); torch is seeded from the step's number all the same, so the whole
state is the weights, the moments, the baselines and that number.
"""

from __future__ import annotations

from collections.abc import Sequence
import math
import time

import msgspec
import torch
from torch import Tensor

from services.trainer.answer import DPO, SFT, Answer
from services.trainer.baselines import Baselines
from services.trainer.batch import MicroBatch, micro_batches
from services.trainer.figures import Figures, Sums, of_answers, of_speed
from services.trainer.objectives.anchor import divergence
from services.trainer.objectives.choice import Tokens, loss_of
from services.trainer.plan import Base, Plan, plan_of
from services.trainer.policy import Policy
from services.trainer.settings import Settings


class NonFinite(ArithmeticError):
    """A loss or gradient was NaN or infinite. Weights, moments and baselines are as before."""


class Learner:
    """The policy, its optimizer and its baselines. For one thread.

    Made with version 0 in the policy, which is what it is anchored to, if it is.
    """

    def __init__(self, policy: Policy, settings: Settings) -> None:
        self.policy = policy
        self.baselines = Baselines(
            kind=settings.baseline, decay=settings.baseline_decay, groups=settings.group_baseline
        )
        self.steps = 0
        """Number of the last step taken; the first is 1."""
        self._settings = settings
        self._base = Base(policy) if settings.kl_coefficient > 0 else None
        self._parameters = sum(p.numel() for p in policy.parameters.values())
        self._optimizer = torch.optim.AdamW(
            list(policy.masters.values()),
            lr=settings.lr,
            betas=(settings.beta1, settings.beta2),
            weight_decay=0.0,
            fused=True,
        )

    def step(
        self,
        answers: Sequence[Answer],
        *,
        lr: float,
        objective: str | Sequence[str] | None = None,
    ) -> Figures:
        """Train on these answers, in this order. Raises NonFinite.

        ``objective``: one for all of them or one for each; None: each answer's own, and of those
        that have none the settings'. Those of ``dpo`` come in twos: the chosen, then the rejected
        one. Where nothing tells the answers apart, and no gradient is left, weights and moments
        stay as they are and the figure ``no_signal`` is 1.
        """
        began_s = time.perf_counter()
        torch.manual_seed(self._settings.seed + self.steps + 1)
        answers = self._routed(answers, objective)
        advantages = self._advantages(answers)
        batches = [
            batch.to(self.policy.device)
            for batch in micro_batches(
                answers,
                advantages,
                micro_answers=self._settings.micro_answers,
                micro_tokens=self._settings.micro_tokens,
            )
        ]
        sums = Sums()
        try:
            plan = plan_of(self.policy, self._base, answers, batches, self._settings)
            for place, batch in self.policy.turns(batches):
                self._accumulate(batch, plan, place, sums)
            sums = self.policy.total(sums)
            norm = self.policy.norm()
            if not (math.isfinite(sums.loss) and math.isfinite(norm)):
                raise NonFinite(f"loss is {sums.loss}, gradient norm is {norm}")
            if norm > 0.0:
                scale = min(1.0, self._settings.max_grad_norm / norm)
                torch._foreach_mul_(self.policy.gradients(), scale)
                for group in self._optimizer.param_groups:
                    group["lr"] = lr
                self._optimizer.step()
        finally:
            self.policy.clear()
        self.policy.round()
        self.baselines.learn(answers)
        self.steps += 1
        tokens = sum(len(a.prompt) + len(a.tokens) for a in answers)
        seconds, peak = time.perf_counter() - began_s, self._settings.peak_tflops
        return {
            **sums.figures(),
            "grad_norm": norm,
            **of_answers(answers, advantages),
            **of_speed(tokens, seconds, self._parameters, peak, self.policy.processes),
        }

    def _routed(
        self, answers: Sequence[Answer], objective: str | Sequence[str] | None
    ) -> list[Answer]:
        """Each with the objective that it is to have."""
        names: Sequence[str]
        if objective is None:
            names = [a.objective or self._settings.objective for a in answers]
        else:
            names = [objective] * len(answers) if isinstance(objective, str) else objective
        return [
            a if a.objective == name else msgspec.structs.replace(a, objective=name)
            for a, name in zip(answers, names, strict=True)
        ]

    def _advantages(self, answers: Sequence[Answer]) -> list[float]:
        weight = self._settings.negative_weight
        found = self.baselines.advantages(answers)
        return [
            # The rejected answer of a pair is no answer for itself; of a difference both directions
            # count alike, or a reward that goes up and down again would leave a trace.
            weight * advantage
            if advantage < 0 and a.objective != DPO and a.before is None
            else advantage
            for a, advantage in zip(answers, found, strict=True)
        ]

    def _accumulate(self, batch: MicroBatch, plan: Plan, place: int, sums: Sums) -> None:
        """Gradient and figures of one micro-batch."""
        logp_T = self.policy.logp(batch)
        tokens = Tokens(
            logp_T=logp_T,
            behaviour_T=batch.behaviour_T,
            advantage_T=batch.advantage_T,
            answer_T=batch.answer_T,
            age_T=plan.age_A[batch.answer_T],
            rival_T=plan.rival_A[batch.answer_T],
            reference_kl=plan.reference_kl,
        )
        objective_T = plan.objective_A[batch.answer_T]
        loss_T = torch.zeros_like(logp_T)
        clipped_T = torch.zeros_like(logp_T)
        sampled_T = batch.mask_T
        for number, name in enumerate(plan.objectives):
            mask_T = batch.mask_T * (objective_T == number)
            part_T, bound_T = loss_of(name, tokens, mask_T, self._settings)
            loss_T, clipped_T = loss_T + part_T, clipped_T + bound_T
            if name == SFT:
                sampled_T = sampled_T - mask_T
        loss = (loss_T * plan.share_A[batch.answer_T]).sum()
        if plan.base:
            loss = loss + self._anchor(logp_T, batch, plan, place, sums)
        sums.loss += float(loss.detach())
        loss.backward()  # type: ignore[no-untyped-call]
        known = (batch.behaviour_T, batch.advantage_T, clipped_T, sampled_T)
        sums.add(logp_T.detach(), *known)

    def _anchor(
        self, logp_T: Tensor, batch: MicroBatch, plan: Plan, place: int, sums: Sums
    ) -> Tensor:
        """What the distance from version 0 adds to the loss."""
        base_T, estimator = plan.base[place], self._settings.kl_estimator
        kl_T = divergence(logp_T, base_T, batch.mask_T, estimator=estimator)
        k3_T = divergence(logp_T.detach(), base_T, batch.mask_T, estimator="k3")
        sums.kl_base += float(k3_T.sum())
        sums.anchored += float(batch.mask_T.sum())
        return self._settings.kl_coefficient * (kl_T * plan.anchor_A[batch.answer_T]).sum()

    def state(self) -> dict[str, Tensor]:
        """Masters and moments, by ``master.``, ``first.`` and ``second.`` before the name. Not
        copies."""
        found = self.policy.frozen()
        for name, master in self.policy.masters.items():
            found[f"master.{name}"] = master
            moments = self._optimizer.state.get(master)
            if moments:
                found[f"first.{name}"] = moments["exp_avg"]
                found[f"second.{name}"] = moments["exp_avg_sq"]
        return found

    def load_moments(self, state: dict[str, Tensor], updates: int) -> None:
        """Take the optimizer's moments, after so many of its updates."""
        self._optimizer.state.clear()
        for name, master in self.policy.masters.items():
            if f"first.{name}" in state:
                self._optimizer.state[master] = {
                    "step": torch.tensor(float(updates), device=master.device),
                    "exp_avg": state[f"first.{name}"].to(master.device, copy=True),
                    "exp_avg_sq": state[f"second.{name}"].to(master.device, copy=True),
                }

    @property
    def updates(self) -> int:
        """How many updates the optimizer's moments have seen: for their bias correction."""
        for moments in self._optimizer.state.values():
            return int(moments["step"])
        return 0

    @torch.no_grad()
    def load_masters(self, state: dict[str, Tensor]) -> None:
        """Take float32 masters and round them. Raises ValueError where they do not fit."""
        self.policy.thaw(state)
        for name, master in self.policy.masters.items():
            found = state.get(f"master.{name}")
            if found is None or found.shape != master.shape:
                raise ValueError(f"no master of {name} in this shape")
            master.copy_(found)
        self.policy.round()


def deterministic(threads: int) -> None:
    """Fix what torch may vary. Once per process, before the first computation."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    # Determinism does not need it: nothing here reads memory that it has not written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
