"""One optimizer step: answers in, weights moved, figures out. Deterministic.

Same weights, moments, baseline, answers in the same order, settings, threads and torch: same bits
afterwards. That is what lets :mod:`services.trainer.recovery` replay a log. There is no chance in a
step (no dropout, no sampling); torch is seeded from the step's number all the same, so the whole
state is the weights, the moments, the baseline and that number.
"""

from __future__ import annotations

from collections.abc import Sequence
import logging
import math
import statistics
import time

import msgspec
import torch
from torch import Tensor

from services.trainer import losses
from services.trainer.answer import Answer
from services.trainer.baseline import Baseline
from services.trainer.batch import MicroBatch, micro_batches
from services.trainer.policy import Policy
from services.trainer.settings import Settings

_log = logging.getLogger(__name__)
Figures = dict[str, float]


class NonFinite(ArithmeticError):
    """A loss or gradient was NaN or infinite. Weights, moments and baseline are as before."""


class Sums(msgspec.Struct):
    """What is added up over the micro-batches of a step."""

    loss: float = 0.0
    ratio: float = 0.0
    ratio_squared: float = 0.0
    mismatch_kl: float = 0.0
    clipped: float = 0.0
    logp: float = 0.0

    def add(self, logp_T: Tensor, behaviour_T: Tensor, clipped_T: Tensor) -> None:
        """Take one micro-batch's tokens."""
        ratio_T = losses.ratio_of(logp_T, behaviour_T).double()
        self.ratio += float(ratio_T.sum())
        self.ratio_squared += float((ratio_T * ratio_T).sum())
        # k3 estimate of KL(sampling || training): ratio - 1 - log ratio, never negative.
        self.mismatch_kl += float((ratio_T - 1.0 - ratio_T.log()).sum())
        self.clipped += float(clipped_T.sum())
        self.logp += float(logp_T.double().sum())


class Learner:
    """The policy, its optimizer and its baseline. For one thread."""

    def __init__(self, policy: Policy, settings: Settings) -> None:
        self.policy = policy
        self.baseline = Baseline(decay=settings.baseline_decay)
        self.steps = 0
        """Number of the last step taken; the first is 1."""
        self._settings = settings
        self._optimizer = torch.optim.AdamW(
            list(policy.masters.values()),
            lr=settings.lr,
            betas=(settings.beta1, settings.beta2),
            weight_decay=0.0,
            fused=True,
        )

    def step(self, answers: Sequence[Answer], *, lr: float, objective: str) -> Figures:
        """Train on these answers, in this order. Raises NonFinite."""
        began_s = time.perf_counter()
        torch.manual_seed(self._settings.seed + self.steps + 1)
        rewards = [(a.slice, a.reward) for a in answers]
        advantages = self._advantages(rewards)
        batches = micro_batches(
            answers,
            advantages,
            micro_answers=self._settings.micro_answers,
            micro_tokens=self._settings.micro_tokens,
        )
        tokens = sum(len(a.tokens) for a in answers)
        sums = Sums()
        try:
            for batch in batches:
                self._accumulate(batch.to(self.policy.device), tokens, objective, sums)
            gradients = self.policy.gradients()
            norm = torch.nn.utils.get_total_norm(gradients)
            if not math.isfinite(float(norm)):
                raise NonFinite(f"gradient norm is {float(norm)}")
            scale = min(1.0, self._settings.max_grad_norm / (float(norm) + 1e-6))
            torch._foreach_mul_(gradients, scale)
            for group in self._optimizer.param_groups:
                group["lr"] = lr
            self._optimizer.step()
        finally:
            self.policy.clear()
        self.policy.round()
        self.baseline.learn(rewards)
        self.steps += 1
        return {
            "loss": sums.loss,
            "grad_norm": float(norm),
            "ess": sums.ratio**2 / (tokens * sums.ratio_squared),
            "mismatch_kl": sums.mismatch_kl / tokens,
            "clip_fraction": sums.clipped / tokens,
            # Of the sampled tokens: an estimate that needs no pass over the vocabulary.
            "entropy": -sums.logp / tokens,
            "reward": statistics.fmean(r for _, r in rewards),
            "length_tokens": tokens / len(answers),
            "answers": float(len(answers)),
            "step_s": time.perf_counter() - began_s,
        }

    def _advantages(self, rewards: Sequence[tuple[str, float]]) -> list[float]:
        weight = self._settings.negative_weight
        return [a if a > 0 else weight * a for a in self.baseline.advantages(rewards)]

    def _accumulate(self, batch: MicroBatch, tokens: int, objective: str, sums: Sums) -> None:
        logp_T = self.policy.logp(batch)
        loss_T, clipped_T = self._loss(objective, logp_T, batch)
        loss = loss_T.sum() / tokens
        sums.loss += float(loss.detach())
        if not math.isfinite(sums.loss):
            raise NonFinite(f"loss is {sums.loss}")
        loss.backward()  # type: ignore[no-untyped-call]
        sums.add(logp_T.detach(), batch.behaviour_T, clipped_T)

    def _loss(self, objective: str, logp_T: Tensor, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        known = (logp_T, batch.behaviour_T, batch.advantage_T, batch.mask_T)
        if objective == "cispo":
            return losses.cispo(*known, ratio_max=self._settings.ratio_max)
        if objective == "ppo":
            low, high = self._settings.clip_low, self._settings.clip_high
            return losses.ppo(*known, clip_low=low, clip_high=high)
        if objective == "reinforce":
            return losses.reinforce(*known)
        raise ValueError(f"unknown objective {objective!r}")

    def state(self) -> dict[str, Tensor]:
        """Masters and moments, by ``master.``, ``first.`` and ``second.`` before the name. Not
        copies."""
        found: dict[str, Tensor] = {}
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
                    "step": torch.tensor(float(updates)),
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
