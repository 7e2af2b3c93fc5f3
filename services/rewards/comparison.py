"""Two accounts of the same interactions: as they were rewarded, and as another spec would. Pure.

Trajectories and receipts in, a :class:`Trial` with intervals out. Called by
:mod:`services.rewards.trial`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
import math

import msgspec

from services.rewards.spec import Spec
from tailrace import events, ids

LARGEST = 5
"""Answers shown by name: those whose reward differs most."""
_Z95 = 1.959963984540054


class Estimate(msgspec.Struct, frozen=True):
    """A mean or a share and its 95 % interval; None where there is nothing to estimate it from."""

    value: float | None
    low: float | None
    high: float | None


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
    """Of the means, tried less logged; paired, by the normal distribution."""
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
        logged_mean=_mean([logged for logged, _ in pairs]),
        tried_mean=_mean([after for _, after in pairs]),
        difference=_paired([after - logged for logged, after in pairs]),
        changed=_wilson(len(changed), len(both)),
        gained=sum(c.logged is None for c in changed),
        lost=sum(c.tried is None for c in changed),
        only_logged=len(was.answers.keys() - would.answers.keys()),
        only_tried=len(would.answers.keys() - was.answers.keys()),
        terms={
            name: (_mean(old.get(name, [])), _mean(new.get(name, []))) for name in {**new, **old}
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


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _paired(differences: Sequence[float]) -> Estimate:
    mean = _mean(differences)
    if mean is None or len(differences) < 2:
        return Estimate(mean, None, None)
    variance = math.fsum((d - mean) ** 2 for d in differences) / (len(differences) - 1)
    half = _Z95 * math.sqrt(variance / len(differences))
    return Estimate(mean, mean - half, mean + half)


def _wilson(some: int, total: int) -> Estimate:
    if not total:
        return Estimate(None, None, None)
    share, z2 = some / total, _Z95**2
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = _Z95 / (1 + z2 / total) * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    return Estimate(share, max(0.0, middle - half), min(1.0, middle + half))


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
        f"mean reward {_number(trial.logged_mean)} -> {_number(trial.tried_mean)}, "
        f"difference {_estimate(trial.difference)}"
    )
    lines.append(
        f"share changed {_estimate(trial.changed)}; {trial.gained} gained a reward, "
        f"{trial.lost} lost it"
    )
    for name, (logged, after) in sorted(trial.terms.items()):
        lines.append(f"  {name}: {_number(logged)} -> {_number(after)}")
    for change, count in sorted(trial.outcomes.items()):
        lines.append(f"feedback {change}: {count}")
    for one in trial.largest:
        lines.append(f"{one.answer}: {_number(one.logged)} -> {_number(one.tried)}")
    return lines


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"


def _estimate(estimate: Estimate) -> str:
    if estimate.low is None:
        return _number(estimate.value)
    return f"{_number(estimate.value)} [{_number(estimate.low)}, {_number(estimate.high)}]"
