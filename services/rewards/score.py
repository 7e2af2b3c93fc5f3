"""An answer and what was said about it, as one number and its parts. Pure.

Called once when an entry closes or is corrected; the result is kept in the state, so that a later
change of the spec does not change what was already said.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
import math

import msgspec
from msgspec.structs import replace

from services.rewards.facts import FeedbackFact
from services.rewards.spec import Spec
from services.rewards.terms import Metric
from services.rewards.verifiers import Answer, Verifiers
from tailrace.events import Component

CUT_SHORT = "cut_short"
"""The reason of a term that was still waited for when its answer was evicted; it may have the value
of what was said until then."""


class Said(msgspec.Struct, frozen=True):
    """A feedback that counts, and how much of it is this answer's.

    ``rejected``: of a preference, this answer is the one that lost.
    """

    fact: FeedbackFact
    share: float = 1.0
    rejected: bool = False


class Score(msgspec.Struct, frozen=True):
    """A reward (None: there is nothing to say) and the terms it was made of."""

    reward: float | None
    components: list[Component]


def score(
    spec: Spec,
    verifiers: Verifiers,
    answer: Answer,
    said: Sequence[Said],
    lost: Collection[str] = (),
    cut: Collection[str] = (),
    signals: Mapping[str, bool] | None = None,
) -> Score:
    """The reward of an answer.

    The weighted mean (or sum) of the terms that have a value, within the spec's bounds. Where the
    spec has metrics or implicit terms and none of them has, the default reward stands for all; but
    there is none where one of them was still waited for: that is no silence.
    ``lost``: metrics of which something came too late; ``cut``: terms whose wait was cut short;
    ``signals``: implicit terms, whether seen.
    """
    components = []
    for name, metric in spec.metrics.items():
        value, reason = _aggregate(metric, [one for one in said if one.fact.metric == name])
        if reason == "no_feedback" and name in lost:
            reason = "late"
        if name in cut:
            reason = CUT_SHORT if value is None or reason is None else f"{reason}, {CUT_SHORT}"
        components.append(Component(name=name, value=value, weight=metric.weight, reason=reason))
    for name, term in spec.implicit.items():
        seen = bool(signals and signals.get(name))
        value = term.seen if seen else term.unseen
        reason = "not_seen" if value is None else None
        if not seen and name in cut:
            value, reason = None, CUT_SHORT
        components.append(Component(name=name, value=value, weight=term.weight, reason=reason))
    heard = any(c.value is not None for c in components)
    for name, verifier in spec.verifiers.items():
        value, reason = verifiers.verify(name, answer)
        components.append(Component(name=name, value=value, weight=verifier.weight, reason=reason))
    if (spec.metrics or spec.implicit) and not heard:
        return Score(None if cut else spec.default_reward, components)
    terms = [(c.value, c.weight or 0.0) for c in components if c.value is not None]
    if not terms:
        return Score(spec.default_reward, components)
    reward = _combined(spec, terms)
    if reward is None:
        spoken = [replace(c, reason="not_finite") if c.value is not None else c for c in components]
        return Score(None, spoken)
    if spec.clip is not None:
        reward = min(max(reward, spec.clip[0]), spec.clip[1])
    return Score(reward, components)


def _combined(spec: Spec, terms: list[tuple[float, float]]) -> float | None:
    """Of (value, weight). None where the sum of the largest doubles, each finite, is not."""
    try:
        reward = math.fsum(value * weight for value, weight in terms)
        if spec.combine == "mean":
            reward /= math.fsum(weight for _, weight in terms)
    except (OverflowError, ValueError):  # fsum's: past the largest double; inf and -inf
        return None
    return reward if math.isfinite(reward) else None


def _aggregate(metric: Metric, said: list[Said]) -> tuple[float | None, str | None]:
    values = [
        (worth * one.share, one.share) for one in said if (worth := _worth(metric, one)) is not None
    ]
    if not values:
        return None, "no_value" if said else "no_feedback"
    if metric.aggregate == "last":
        values = values[-1:]
    numbers = [value for value, _ in values]
    match metric.aggregate:
        case "last":
            value = numbers[-1]
        case "mean":
            value = sum(v / len(numbers) for v in numbers)
        case "min":
            value = min(numbers)
        case "max":
            value = max(numbers)
        case "sum":
            value = sum(numbers)
    if not math.isfinite(value):
        return None, "overflow"
    share = min(share for _, share in values)
    return value, None if share == 1.0 else f"discounted {share:.3g}"


def _worth(metric: Metric, said: Said) -> float | None:
    fact = said.fact
    if fact.kind == "preference":
        return metric.rejected if said.rejected else metric.preferred
    if fact.kind is not None:
        return metric.text
    if fact.boolean is not None:
        return metric.true if fact.boolean else metric.false
    if fact.number is not None:
        return _mapped(metric, fact.number)
    if fact.category is not None:
        return metric.categories.get(fact.category)
    return None


def _mapped(metric: Metric, number: float) -> float:
    if metric.range is None:
        return number
    low, high = metric.range
    share = min(max((number - low) / (high - low), 0.0), 1.0)
    return metric.to[0] + share * (metric.to[1] - metric.to[0])
