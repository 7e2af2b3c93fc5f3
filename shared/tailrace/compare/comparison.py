"""Two accounts side by side. Pure; the second is held against the first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TypeVar

import msgspec

from tailrace import estimates
from tailrace.compare.account import Account, Answer
from tailrace.estimates import Estimate, number

K = TypeVar("K")
LARGEST = 5
"""Answers shown by name: those whose reward differs most."""


class Rewards(msgspec.Struct, frozen=True, kw_only=True):
    """Rewards of both."""

    answers: tuple[int, int]
    """With a trajectory."""
    both: int
    """Answers that are in both: same interaction, same choice."""
    means: tuple[Estimate, Estimate]
    """Over all that have a reward."""
    difference: Estimate
    """Of the means, second less first; of different answers."""
    paired: Estimate
    """The same over the answers with a reward in both, each held against itself."""
    changed: Estimate
    """Share of the answers in both whose reward is another, or is none in one of them."""
    terms: dict[str, Estimate]
    """Paired difference of each term."""
    largest: list[tuple[str, float | None, float | None]]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How often records came to one outcome."""

    counts: tuple[int, int]
    difference: Estimate
    """Of the shares, second less first."""


class Outcomes(msgspec.Struct, frozen=True, kw_only=True):
    """What became of feedback, or of trajectories."""

    records: tuple[int, int]
    outcomes: dict[str, Outcome]
    both: int
    changed: Estimate
    """Share of the records in both with another outcome."""
    changes: dict[str, int]
    """``late -> joined`` and how many."""


class Versions(msgspec.Struct, frozen=True, kw_only=True):
    """What was published."""

    counts: tuple[int, int]
    newest: tuple[int | None, int | None]
    steps: tuple[int, int]
    equal: int
    """Numbers in both with the same digest."""
    first_difference: int | None
    """The lowest number in both with another digest."""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """All of it."""

    first: str
    second: str
    rewards: Rewards
    feedback: Outcomes
    trajectories: Outcomes
    alarms: dict[str, tuple[int, int]]
    """That fired, by stream and detector."""
    versions: Versions


def compared(first: str, second: str, one: Account, two: Account) -> Comparison:
    """Two prefixes, by name."""
    names = sorted(one.versions.keys() & two.versions.keys())
    other = [n for n in names if one.versions[n] != two.versions[n]]
    return Comparison(
        first=first,
        second=second,
        rewards=_rewards(one.answers, two.answers),
        feedback=_outcomes(one.feedback, two.feedback),
        trajectories=_outcomes(one.trained, two.trained),
        alarms={
            name: (one.alarms[name], two.alarms[name])
            for name in sorted(one.alarms.keys() | two.alarms.keys())
        },
        versions=Versions(
            counts=(len(one.versions), len(two.versions)),
            newest=(max(one.versions, default=None), max(two.versions, default=None)),
            steps=(one.steps, two.steps),
            equal=len(names) - len(other),
            first_difference=min(other, default=None),
        ),
    )


def _rewards(one: dict[str, Answer], two: dict[str, Answer]) -> Rewards:
    names = sorted(one.keys() & two.keys())
    both = [(name, one[name].reward, two[name].reward) for name in names]
    pairs = [(a, b) for _, a, b in both if a is not None and b is not None]
    changed = [each for each in both if each[1] != each[2]]
    first, second = (
        [each.reward for each in answers.values() if each.reward is not None]
        for answers in (one, two)
    )
    terms: dict[str, list[float]] = {}
    for name in names:
        for term, value in one[name].terms.items():
            other = two[name].terms.get(term)
            if value is not None and other is not None:
                terms.setdefault(term, []).append(other - value)
    return Rewards(
        answers=(len(one), len(two)),
        both=len(both),
        means=(estimates.mean(first), estimates.mean(second)),
        difference=estimates.unpaired(first, second),
        paired=estimates.paired([b - a for a, b in pairs]),
        changed=estimates.share(len(changed), len(both)),
        terms={name: estimates.paired(values) for name, values in sorted(terms.items())},
        largest=sorted(changed, key=lambda c: (-abs((c[2] or 0.0) - (c[1] or 0.0)), c[0]))[
            :LARGEST
        ],
    )


def _outcomes(one: dict[K, str], two: dict[K, str]) -> Outcomes:
    counts = Counter(one.values()), Counter(two.values())
    totals = len(one), len(two)
    both = one.keys() & two.keys()
    changes = Counter(f"{one[k]} -> {two[k]}" for k in both if one[k] != two[k])
    return Outcomes(
        records=totals,
        outcomes={
            name: Outcome(
                counts=(counts[0][name], counts[1][name]),
                difference=estimates.shares(
                    (counts[0][name], totals[0]), (counts[1][name], totals[1])
                ),
            )
            for name in sorted(counts[0].keys() | counts[1].keys())
        },
        both=len(both),
        changed=estimates.share(sum(changes.values()), len(both)),
        changes=dict(sorted(changes.items())),
    )


def in_words(found: Comparison) -> list[str]:
    """The comparison as lines of text."""
    rewards, versions = found.rewards, found.versions
    lines = [
        f"{found.first!r} and {found.second!r}: {rewards.answers[0]} and {rewards.answers[1]} "
        f"answers, {rewards.both} in both",
        f"mean reward {rewards.means[0]} and {rewards.means[1]}, difference {rewards.difference}",
        f"of the same answers: difference {rewards.paired}, changed {rewards.changed}",
    ]
    lines += [f"  {name}: {value}" for name, value in rewards.terms.items()]
    lines += [f"  {name}: {number(a)} -> {number(b)}" for name, a, b in rewards.largest]
    for name, account in (("feedback", found.feedback), ("trajectories", found.trajectories)):
        lines.append(
            f"{name}: {account.records[0]} and {account.records[1]} with an outcome, of "
            f"{account.both} in both changed {account.changed}"
        )
        lines += _counts(account.outcomes.items())
        lines += [f"  {change}: {count}" for change, count in account.changes.items()]
    lines += [f"alarms {name}: {a} and {b}" for name, (a, b) in found.alarms.items()]
    newest = " and ".join("none" if v is None else str(v) for v in versions.newest)
    lines.append(
        f"versions: {versions.counts[0]} and {versions.counts[1]}, newest {newest}, steps "
        f"{versions.steps[0]} and {versions.steps[1]}, {versions.equal} with the same digest"
    )
    if versions.first_difference is not None:
        lines.append(f"the first that differs is {versions.first_difference}")
    return lines


def _counts(outcomes: Iterable[tuple[str, Outcome]]) -> list[str]:
    return [
        f"  {name}: {each.counts[0]} and {each.counts[1]}, share {each.difference}"
        for name, each in outcomes
    ]
