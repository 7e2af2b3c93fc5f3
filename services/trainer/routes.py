"""By which objective an answer is trained: by kind, by age, by how far training has moved. Pure.

::

    a demonstration                          sft      it is of no policy, so it has no age
    two answers to one prompt, one preferred dpo      while neither is too old
    preferred, and its rival is not there    kto
    up to fresh_versions old                 objective            (cispo)
    up to corrected_versions                 corrected_objective  (tis)
    up to max_age_versions                   old_objective        (kto)
    older, or of another branch              refused: stale (age, branch)

Age is in weight changes between the oldest version that sampled a token and the newest one. While
the last step's ratios show that training has left what samples (:class:`Divergence`), every answer
goes by the next older row: a version can be a small change or a large one. A revision of an answer
that was trained is trained as a difference of rewards (:meth:`Routes.compensation`). That says
something where the loss is linear in the advantage; elsewhere it is ``filtered: already_trained``.

Comments reach the trainer as what the reward spec makes of them, a component of the reward: an
answer of which nothing but words is known is ``filtered: unscored``, before it comes here.

What :meth:`Routes.of` says is written into the Step, so a replay need not ask. Called by
:mod:`services.trainer.intake`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from services.trainer.answer import DPO, KTO, NOT_LINEAR, SFT, Answer, Refusal
from services.trainer.settings import Settings
from tailrace.events import ModelUpdate

ALREADY = Refusal("filtered", "already_trained")


class Divergence(msgspec.Struct, frozen=True, kw_only=True):
    """How far training was from sampling in the last step that was taken; None: no step said."""

    ess: float | None = None
    """Effective sample size as a share of the tokens, 0 to 1."""
    mismatch_kl: float | None = None
    """KL(sampling || training), nats a token."""

    @classmethod
    def of(cls, figures: Mapping[str, float]) -> Divergence:
        """As a Step's figures, or those of a version, say it."""
        return cls(ess=figures.get("ess"), mismatch_kl=figures.get("mismatch_kl"))


def last_figures(chain: Sequence[ModelUpdate]) -> dict[str, float]:
    """Those of a chain's last version whose step had sampled answers; empty before the first."""
    return next((u.figures for u in reversed(chain) if "ess" in u.figures), {})


class Routes:
    """The bounds of one trainer's settings, and what lies between them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._rows = (settings.objective, settings.corrected_objective, settings.old_objective)

    def of(
        self,
        answer: Answer,
        age_versions: int | None,
        divergence: Divergence,
        *,
        paired: bool = False,
    ) -> str | Refusal:
        """The objective, or why there is none. ``age_versions``: None: of another branch, or of
        none; ``paired``: it is in a step together with its rival."""
        if answer.objective == SFT:
            return ALREADY if answer.before is not None else SFT
        if age_versions is None:
            return Refusal("stale", "branch")
        if age_versions > self._settings.max_age_versions:
            return Refusal("stale", "age")
        if paired:
            return DPO
        if self._settings.pairs and answer.below and answer.before is None:
            return KTO
        bounds = (self._settings.fresh_versions, self._settings.corrected_versions)
        row = sum(age_versions > bound for bound in bounds) + self.diverged(divergence)
        objective = self._rows[min(row, 2)]
        return ALREADY if answer.before is not None and objective in NOT_LINEAR else objective

    def diverged(self, divergence: Divergence) -> bool:
        """Whether training has left what samples."""
        ess, mismatch = divergence.ess, divergence.mismatch_kl
        far = ess is not None and ess < self._settings.min_ess
        return far or (mismatch is not None and mismatch > self._settings.max_mismatch_kl)

    def are_pair(self, winner: Answer, loser: Answer) -> bool:
        """Whether the first was preferred over the second, and what they say about each other can
        be trained: samples of one prompt, of no group, neither of them trained before."""
        return (
            self._settings.pairs
            and loser.name in winner.below
            and loser.name != winner.name
            and winner.prompt == loser.prompt
            and all(may_pair(answer) for answer in (winner, loser))
        )

    def may_wait(self, answer: Answer) -> bool:
        """Whether it would be half of a pair if what it was preferred over came."""
        return self._settings.pairs and bool(answer.below) and may_pair(answer)

    def compensation(self, answer: Answer, before: float | None) -> Answer | Refusal:
        """A revision of an answer that was trained with the reward ``before`` (None: nobody knows):
        the answer whose advantage is the difference, within the bound in either direction.

        The baseline was the same for both, so it cancels: ``(r' - b) - (r - b)``. What the bound
        cuts off a later revision makes up for: ``reward`` is then what the answer is trained with
        in all.
        """
        bound = self._settings.compensation_max
        if before is None or bound == 0.0 or answer.objective == SFT or answer.reward == before:
            return ALREADY
        reward = min(max(answer.reward, before - bound), before + bound)
        return msgspec.structs.replace(answer, reward=reward, before=before)


def may_pair(answer: Answer) -> bool:
    """Whether an answer may be half of a pair at all."""
    return answer.objective != SFT and answer.before is None and answer.group is None
