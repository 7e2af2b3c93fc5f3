"""What a step says of itself: the figures of its Step record, its version and ``/metrics``.

    loss, grad_norm           of the whole step, before its gradient is scaled down
    ess                       effective sample size of the importance ratios, as a share of tokens:
                              (sum r)^2 / (n sum r^2)
    mismatch_kl               KL(sampling || training) per token, the k3 estimate
    clip_fraction             share of tokens whose gradient a bound changed; ``_positive`` and
                              ``_negative``: of those with such an advantage
    entropy                   of the sampled tokens, nats: an estimate that needs no pass over the
                              vocabulary
    kl_base                   KL(training || version 0) per token, k3; only when it is anchored
    reward, length_tokens     means over the answers that were sampled, and over all
    answers, objective_NAME   how many, and how many by each objective
    effective, no_signal      answers that teach something, and 1 where there is none
    lag_mean, lag_max, lag_N  ages of the answers in weight changes, and how many are at least N old
                              and younger than the next N: 0, 1, 2, 4, 8, ... 64
    step_s, tokens_per_s      seconds of the step; prompt and answer tokens by them
    mfu                       operations by the most that the devices can do, where that is set
    idle_share                share of the time since the last step that went by waiting for data

Demonstrations were not sampled from any weights: they are in no figure of ratios and none of
entropy. Pure; filled by :mod:`services.trainer.learner`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
import statistics

import msgspec
import torch
from torch import Tensor

from services.trainer.answer import SFT, Answer
from services.trainer.objectives.ratio import ratio_of

Figures = dict[str, float]
LAGS = (0, 1, 2, 4, 8, 16, 32, 64)
"""Lower bounds of the lag histogram."""


class Sums(msgspec.Struct):
    """What is added up over the tokens of a step's micro-batches."""

    loss: float = 0.0
    tokens: float = 0.0
    """That some weights sampled, and that count."""
    ratio: float = 0.0
    ratio_squared: float = 0.0
    mismatch_kl: float = 0.0
    logp: float = 0.0
    positive: float = 0.0
    clipped_positive: float = 0.0
    negative: float = 0.0
    clipped_negative: float = 0.0
    clipped: float = 0.0
    anchored: float = 0.0
    kl_base: float = 0.0

    def add(
        self,
        logp_T: Tensor,
        behaviour_T: Tensor,
        advantage_T: Tensor,
        clipped_T: Tensor,
        sampled_T: Tensor,
    ) -> None:
        """Take one micro-batch; ``sampled_T``: 1 where a token counts and was sampled."""
        ratio_T = ratio_of(logp_T, behaviour_T).double()
        positive_T = (advantage_T > 0) * sampled_T
        negative_T = (advantage_T < 0) * sampled_T
        found = {
            "tokens": sampled_T,
            "ratio": ratio_T * sampled_T,
            "ratio_squared": ratio_T * ratio_T * sampled_T,
            "mismatch_kl": (ratio_T - 1.0 - ratio_T.log()) * sampled_T,
            "logp": logp_T.double() * sampled_T,
            "positive": positive_T,
            "clipped_positive": clipped_T * positive_T,
            "negative": negative_T,
            "clipped_negative": clipped_T * negative_T,
            "clipped": clipped_T * sampled_T,
        }
        # In one piece: each .item() waits for the device.
        totals = torch.stack([values_T.double().sum() for values_T in found.values()]).tolist()
        for name, total in zip(found, totals, strict=True):
            setattr(self, name, getattr(self, name) + total)

    def figures(self) -> Figures:
        """Those of tokens."""
        found = {"loss": self.loss}
        if self.tokens:
            found |= {
                "ess": self.ratio**2 / (self.tokens * self.ratio_squared),
                "mismatch_kl": self.mismatch_kl / self.tokens,
                "clip_fraction": self.clipped / self.tokens,
                "clip_fraction_positive": self.clipped_positive / max(1.0, self.positive),
                "clip_fraction_negative": self.clipped_negative / max(1.0, self.negative),
                "entropy": -self.logp / self.tokens,
            }
        if self.anchored:
            found["kl_base"] = self.kl_base / self.anchored
        return found


def of_answers(answers: Sequence[Answer], advantages: list[float]) -> Figures:
    """Those that the answers alone decide."""
    effective = len(answers) - advantages.count(0.0)
    found = {
        "length_tokens": sum(len(a.tokens) for a in answers) / len(answers),
        "answers": float(len(answers)),
        "effective": float(effective),
        "no_signal": float(not effective),
    }
    rewards = [a.reward for a in answers if a.objective != SFT]
    if rewards:
        found["reward"] = statistics.fmean(rewards)
    for name, count in sorted(Counter(a.objective for a in answers).items()):
        found[f"objective_{name}"] = float(count)
    return found | of_lags([a.age_versions for a in answers if a.age_versions is not None])


def of_lags(ages: Sequence[int]) -> Figures:
    """The histogram of ages, in weight changes. Bins without any are left out."""
    if not ages:
        return {}
    bins = Counter(max(bound for bound in LAGS if bound <= max(0, age)) for age in ages)
    found = {"lag_mean": statistics.fmean(ages), "lag_max": float(max(ages))}
    return found | {f"lag_{bound}": float(bins[bound]) for bound in sorted(bins)}


def of_speed(
    tokens: int, seconds: float, parameters: int, peak_tflops: float | None, processes: int
) -> Figures:
    """Those of a step over so many tokens, prompts included, by so many processes, each of which
    has one device.

    A trained parameter takes 6 operations per token, forward and backward (Kaplan et al. 2020,
    arXiv 2001.08361, section 2.1); attention and what is computed twice do not count.
    """
    found = {"step_s": seconds, "tokens_per_s": tokens / max(seconds, 1e-9)}
    if peak_tflops is not None:
        peak = processes * peak_tflops * 1e12
        found["mfu"] = 6.0 * parameters * found["tokens_per_s"] / peak
    return found


class Idle:
    """Which share of the time between steps went by waiting for data, and reading it.

    >>> now = iter([0.0, 2.0, 5.0, 8.0])
    >>> idle = Idle(lambda: next(now))
    >>> with idle.waiting():  # from 2 to 5
    ...     pass
    >>> idle.share()  # at 8
    0.375
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since_s = clock()
        self._waited_s = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around a read."""
        began_s = self._clock()
        try:
            yield
        finally:
            self._waited_s += self._clock() - began_s

    def share(self) -> float:
        """Since the last call, or the beginning."""
        now_s = self._clock()
        total_s, waited_s = now_s - self._since_s, self._waited_s
        self._since_s, self._waited_s = now_s, 0.0
        return 0.0 if total_s <= 0.0 else waited_s / total_s
