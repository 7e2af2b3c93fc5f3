"""Two accounts of the same interactions: as they were rewarded, and as another spec would. Pure.

Trajectories and receipts in, a :class:`Trial` with intervals out. Called by
:mod:`services.rewards.trial`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from services.rewards.spec import Spec
from tailrace import estimates, events, ids
from tailrace.estimates import Estimate, number

LARGEST = 5
"""Answers shown by name: those whose reward differs most."""


class Change(msgspec.Struct, frozen=True):
    """One answer both ways."""

    answer: str
    logged: float | None
    tried: float | None


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """What another spec would have changed. ``logged`` is as it was, ``tried`` as it would be."""

    spec: str
    """The tried spec's hash."""
    answers: int
    """With a trajectory both ways."""
    rewarded: int
    """With a reward both ways: means and difference are theirs."""
    logged_mean: float | None
    tried_mean: float | None
    difference: Estimate
    """Of the means, tried less logged; paired, by Student's t."""
    changed: Estimate
    """Share of answers with another reward (Wilson 1927)."""
    gained: int
    """Answers that would have a reward and had none."""
    lost: int
    """Answers that had a reward and would have none."""
    only_logged: int
    """Answers that would still be open, or that would be no more."""
    only_tried: int
    """Answers that are still open."""
    terms: dict[str, tuple[float | None, float | None]]
    """Mean value of each term, logged and tried, where it had one."""
    outcomes: dict[str, int]
    """Feedback with another outcome: ``late -> joined`` and how many."""
    largest: list[Change]


class Account:
    """The final trajectory of each answer and the outcome of each feedback record."""

    def __init__(self, since_ms: int, until_ms: int) -> None:
        self._since_ms, self._until_ms = since_ms, until_ms
        self.answers: dict[str, events.Trajectory] = {}
        self.outcomes: dict[tuple[str, int, int], str] = {}

    def take(self, record: events.Struct) -> None:
        """A record of ``trajectories`` or ``receipts``; those of other stretches are left out."""
        if isinstance(record, events.Trajectory):
            if not self._within(record.interaction_id):
                return
            name = ids.answer(record.interaction_id, record.choice)
            known = self.answers.get(name)
            if known is None or known.revision < record.revision:
                self.answers[name] = msgspec.structs.replace(record, content=None)
        elif isinstance(record, events.Receipt) and record.stage == "rewards":
            subject = record.subject_id.partition("!")[0]
            if ids.is_interaction(subject) and self._within(subject):
                source = record.source
                self.outcomes[subject, source.partition, source.offset] = record.outcome

    def _within(self, interaction: str) -> bool:
        return self._since_ms <= ids.turn_time_ms(interaction) < self._until_ms


def compared(rules: Spec, was: Account, would: Account) -> Trial:
    """Both accounts of one stretch, side by side."""
    names = sorted(was.answers.keys() & would.answers.keys())
    both = [Change(n, was.answers[n].reward, would.answers[n].reward) for n in names]
    pairs = [(c.logged, c.tried) for c in both if c.logged is not None and c.tried is not None]
    changed = [c for c in both if c.logged != c.tried]
    outcomes = Counter(
        f"{was.outcomes[place]} -> {would.outcomes[place]}"
        for place in sorted(was.outcomes.keys() & would.outcomes.keys())
        if was.outcomes[place] != would.outcomes[place]
    )
    old, new = (_terms(account.answers[n] for n in names) for account in (was, would))
    return Trial(
        spec=rules.hash(),
        answers=len(both),
        rewarded=len(pairs),
        logged_mean=estimates.mean([logged for logged, _ in pairs]).value,
        tried_mean=estimates.mean([after for _, after in pairs]).value,
        difference=estimates.paired([after - logged for logged, after in pairs]),
        changed=estimates.share(len(changed), len(both)),
        gained=sum(c.logged is None for c in changed),
        lost=sum(c.tried is None for c in changed),
        only_logged=len(was.answers.keys() - would.answers.keys()),
        only_tried=len(would.answers.keys() - was.answers.keys()),
        terms={
            name: (estimates.mean(old.get(name, [])).value, estimates.mean(new.get(name, [])).value)
            for name in {**new, **old}
        },
        outcomes=dict(outcomes),
        largest=sorted(changed, key=lambda c: (-_size(c), c.answer))[:LARGEST],
    )


def _terms(trajectories: Iterable[events.Trajectory]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for one in trajectories:
        for component in one.components:
            values = found.setdefault(component.name, [])
            if component.value is not None:
                values.append(component.value)
    return found


def _size(change: Change) -> float:
    return abs((change.tried or 0.0) - (change.logged or 0.0))


def in_words(trial: Trial) -> list[str]:
    """The trial as lines of text."""
    lines = [
        f"spec {trial.spec}: {trial.answers} answers, {trial.rewarded} with a reward both ways"
    ]
    if trial.only_logged or trial.only_tried:
        lines.append(
            f"left out: {trial.only_logged} only as logged, {trial.only_tried} only as tried"
        )
    lines.append(
        f"mean reward {number(trial.logged_mean)} -> {number(trial.tried_mean)}, "
        f"difference {trial.difference}"
    )
    lines.append(
        f"share changed {trial.changed}; {trial.gained} gained a reward, {trial.lost} lost it"
    )
    for name, (logged, after) in sorted(trial.terms.items()):
        lines.append(f"  {name}: {number(logged)} -> {number(after)}")
    for change, count in sorted(trial.outcomes.items()):
        lines.append(f"feedback {change}: {count}")
    for one in trial.largest:
        lines.append(f"{one.answer}: {number(one.logged)} -> {number(one.tried)}")
    return lines
