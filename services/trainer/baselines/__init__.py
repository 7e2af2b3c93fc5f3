"""What reward to expect of each answer, and so its advantage. Deterministic, without a clock.

::

    answer of a group with others in the batch ──> :func:`leave_one_out`
    any other                     moving mean of all, or of its slice (:mod:`.moving`)
                                  and what its prompt says beyond it  (:mod:`.regression`)
    a compensation                the difference of the two rewards, whatever was expected
    sft, dpo                      1, or -1 for a pair's loser: nothing is expected of these
    kto, of a preferred answer    1: it was chosen, whatever its reward

Learns only from the inputs of Steps, in Step order, so a replay of the ledger makes the same one;
:meth:`Baselines.state` goes into the checkpoint. Rewards are finite (the intake's limits), so
advantages are: where nothing tells the answers of a step apart they are all 0, to the bit. Called
by :mod:`services.trainer.learner`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from services.trainer.answer import DPO, KTO, SFT, Answer
from services.trainer.baselines.moving import MovingMeans, batch_means
from services.trainer.baselines.regression import Regression

Kind = Literal["slice", "global", "regression"]


class Baselines:
    """The baselines of one trainer. For one thread.

    ``kind`` is for answers that stand alone: ``global`` one moving mean, ``slice`` one for each
    slice, ``regression`` a slice's mean and the prompt's residual on it. ``groups``: whether
    answers of one group are measured by each other.
    """

    def __init__(self, *, kind: Kind = "slice", decay: float, groups: bool = True) -> None:
        self._global = kind == "global"
        self._groups = groups
        self._means = MovingMeans(decay=decay)
        self._regression = Regression() if kind == "regression" else None

    def advantages(self, answers: Sequence[Answer]) -> list[float]:
        """One for each answer of a step, in its order. Learns nothing.

        A slice that was never seen is measured by its own mean in this batch.
        """
        found = [0.0] * len(answers)
        alone: list[int] = []
        groups: dict[str, list[int]] = {}
        in_pairs = 0
        for i, answer in enumerate(answers):
            objective = answer.objective
            if answer.before is not None:
                found[i] = answer.reward - answer.before
            elif objective == SFT or (objective == KTO and answer.below):
                found[i] = 1.0
            elif objective == DPO:  # the winner of a pair comes first
                found[i] = -1.0 if in_pairs % 2 else 1.0
                in_pairs += 1
            elif self._groups and answer.group is not None:
                groups.setdefault(answer.group, []).append(i)
            else:
                alone.append(i)
        for members in groups.values():
            if len(members) == 1:
                alone += members
                continue
            measured = leave_one_out([answers[i].reward for i in members])
            for i, advantage in zip(members, measured, strict=True):
                found[i] = advantage
        here = batch_means([(self._slice(answers[i]), answers[i].reward) for i in alone])
        for i in alone:
            found[i] = answers[i].reward - self._expected(answers[i], here)
        return found

    def learn(self, answers: Sequence[Answer]) -> None:
        """Take the inputs of a step that was taken.

        Not a compensation, whose answer was learnt from before; not a demonstration, which nobody
        rewarded; not a pair, which was compared.
        """
        heard = [a for a in answers if a.before is None and a.objective not in (SFT, DPO)]
        if self._regression is not None:
            here = batch_means([(self._slice(a), a.reward) for a in heard])
            for answer in heard:
                name = self._slice(answer)
                mean = self._means.of(name)
                residual = answer.reward - (here[name][0] if mean is None else mean)
                self._regression.learn(answer, residual)
        self._means.learn([(self._slice(a), a.reward) for a in heard])

    def state(self) -> dict[str, Any]:
        """Everything learnt, as numbers and texts: msgpack or JSON bring it back bit for bit."""
        regression = None if self._regression is None else self._regression.state()
        return {"means": self._means.state(), "regression": regression}

    def load(self, state: Mapping[str, Any]) -> None:
        """Put back a :meth:`state`; an empty one: nothing was learnt. Of another kind's the means
        are taken."""
        self._means.load(state.get("means", ()))
        if self._regression is not None:
            self._regression = Regression()
            if state.get("regression") is not None:
                self._regression.load(state["regression"])

    def _expected(self, answer: Answer, here: Mapping[str, tuple[float, int]]) -> float:
        name = self._slice(answer)
        mean = self._means.of(name)
        if mean is None:
            return here[name][0]
        return mean + (0.0 if self._regression is None else self._regression.of(answer))

    def _slice(self, answer: Answer) -> str:
        return "" if self._global else answer.slice


def leave_one_out(rewards: Sequence[float]) -> list[float]:
    """Advantages of one group's rewards, two at least: what the others earned is expected of each.

    RLOO (Kool et al. 2019, openreview r1lgTGL5DE; of language models Ahmadian et al. 2024, arXiv
    2402.14740, eq. 7): ``A_i = r_i - mean of r_j, j != i``. Unbiased whichever others there are, so
    also of a group that lost members.

    >>> leave_one_out([1.0, 0.0, 0.5])
    [0.75, -0.75, 0.0]
    """
    assert len(rewards) > 1
    others = len(rewards) - 1
    if min(rewards) == max(rewards):  # no signal is zero, whatever a sum rounds to
        return [0.0] * len(rewards)
    total = sum(rewards)
    return [reward - (total - reward) / others for reward in rewards]
