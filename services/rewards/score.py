"""An answer and what was said about it, as one number and its parts. Pure.

Called once when an entry closes or is corrected; the result is kept in the state, so that a later
change of the spec does not change what was already said.
"""

from __future__ import annotations

import math

import msgspec
from msgspec.structs import replace

from services.rewards.facts import FeedbackFact
from services.rewards.spec import Spec
from services.rewards.terms import Metric
from services.rewards.verifiers import Answer, Verifiers
from tailrace.events import Component


class Score(msgspec.Struct, frozen=True):
    """A reward (None: there is nothing to say) and the terms it was made of."""

    reward: float | None
    components: list[Component]


def score(spec: Spec, verifiers: Verifiers, answer: Answer, said: list[FeedbackFact]) -> Score:
    """The reward of an answer.

    The weighted mean (or sum) of the terms that have a value, within the spec's bounds. Where the
    spec has metrics and none of them was spoken to, the default reward stands for all.
    """
    components = []
    for name, metric in spec.metrics.items():
        value, reason = _aggregate(metric, [f for f in said if f.metric == name])
        components.append(Component(name=name, value=value, weight=metric.weight, reason=reason))
    heard = any(c.value is not None for c in components)
    for name, verifier in spec.verifiers.items():
        value, reason = verifiers.verify(name, answer)
        components.append(Component(name=name, value=value, weight=verifier.weight, reason=reason))
    if spec.metrics and not heard:
        return Score(spec.default_reward, components)
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


def _aggregate(metric: Metric, said: list[FeedbackFact]) -> tuple[float | None, str | None]:
    values = [value for f in said if (value := _worth(metric, f)) is not None]
    if not values:
        return None, "no_value" if said else "no_feedback"
    match metric.aggregate:
        case "last":
            value = values[-1]
        case "mean":
            value = sum(v / len(values) for v in values)
        case "min":
            value = min(values)
        case "max":
            value = max(values)
        case "sum":
            value = sum(values)
    return (value, None) if math.isfinite(value) else (None, "overflow")


def _worth(metric: Metric, feedback: FeedbackFact) -> float | None:
    if feedback.boolean is not None:
        return metric.true if feedback.boolean else metric.false
    if feedback.number is not None:
        return feedback.number
    if feedback.category is not None:
        return metric.categories.get(feedback.category)
    return None
