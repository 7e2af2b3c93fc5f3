"""The end of a demo in numbers. Pure.

``tailrace demo --json`` prints :func:`summary` as its last line.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
import math
from typing import Any

from services.local.picture import Picture
from tailrace.estimates import quantile, wilson
from tailrace.report import Report

EDGE = 100
"""Interactions at either end that are compared."""


def p_value(good_a: int, total_a: int, good_b: int, total_b: int) -> float:
    """Two-sided p of equal shares: two-proportion z test with the pooled share.

    >>> round(p_value(15, 100, 30, 100), 5)
    0.01109
    """
    if not total_a or not total_b:
        return 1.0
    pooled = (good_a + good_b) / (total_a + total_b)
    variance = pooled * (1 - pooled) * (1 / total_a + 1 / total_b)
    if variance == 0:
        return 1.0
    z = (good_a / total_a - good_b / total_b) / math.sqrt(variance)
    return math.erfc(abs(z) / math.sqrt(2))


def _share(liked: Sequence[bool]) -> dict[str, Any]:
    low, high = wilson(sum(liked), len(liked))
    return {
        "mean": round(sum(liked) / len(liked), 4) if liked else None,
        "low": round(low, 4),
        "high": round(high, 4),
        "interactions": len(liked),
    }


def _figures(values: Sequence[float], *shares: float, digits: int = 2) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for share in shares:
        value = quantile(values, share)
        name = "max" if share == 1.0 else f"p{share * 100:.0f}"
        found[name] = None if value is None else round(value, digits)
    return found


def summary(
    picture: Picture, report: Report | None, *, wall_s: float, taste: str
) -> dict[str, Any]:
    """The demo's result. ``report`` None: there was no audit.

    Rewards are shares by the hidden taste of the first and last :data:`EDGE` interactions by the
    time they were asked (half of all where there are fewer than twice that many).
    ``feedback.unaccounted``: records of this run without an outcome, and votes that were
    acknowledged but are not on the log. ``update_pause_ms``: of updates of engines that were
    serving; the swap after a start of one, or of its vLLM, does not count.
    """
    liked = [line.liked for line in sorted(picture.answers, key=lambda line: line.asked_ms)]
    edge = min(EDGE, len(liked) // 2)
    first, last = liked[:edge], liked[len(liked) - edge :]
    samples_s = picture.latency.samples_s()
    weights = [v for v in picture.versions if not v.zero_step]
    deltas = [float(v.bytes) for v in weights if v.kind == "delta" and v.bytes is not None]
    failed_votes = sum(1 for line in picture.failed if line.what == "feedback")
    failed = len(picture.failed)
    return {
        "taste": taste,
        "reward_before": _share(first),
        "reward_after": _share(last),
        "p_value": p_value(sum(first), len(first), sum(last), len(last)),
        "interactions": len(liked),
        "versions": len(weights),
        "versions_published": len(picture.versions),
        "serving": picture.serving,
        "feedback": {
            "sent": len(picture.votes),
            **dict(sorted(picture.outcomes().items())),
            "unaccounted": picture.feedback_waiting(),
        },
        "trajectories": {
            "made": len(picture.trajectories),
            **dict(sorted(Counter(picture.trajectory_outcomes.values()).items())),
            "undecided": picture.trajectories_waiting(),
        },
        "versions_behind": _figures([float(lag) for lag in picture.lags], 0.5, 1.0),
        "feedback_to_served_s": {**_figures(samples_s, 0.5, 0.95), "count": len(samples_s)},
        "requests": {
            "total": len(liked) + len(picture.votes) + failed,
            "failed": failed,
            "failed_votes": failed_votes,
            "retried_votes": sum(1 for v in picture.votes.values() if v.attempts > 1),
        },
        "update_pause_ms": _figures(picture.pauses_ms, 0.5, 1.0, digits=1),
        "update_bytes": _figures(deltas, 0.5, 1.0, digits=0),
        "step_s": _figures(picture.steps_s, 0.5),
        "steps": len(picture.steps_s),
        "alarms": len(picture.alarms),
        "dead_letters": picture.dead_letters,
        "restarts": sum(p.restarts for p in picture.processes.values()),
        "audit": None
        if report is None
        else {"ok": report.ok, "head": report.head, "problems": len(report.problems)},
        "wall_s": round(wall_s, 1),
    }


def in_words(result: dict[str, Any]) -> list[str]:
    """The same for people, some lines."""
    before, after = result["reward_before"], result["reward_after"]
    lines = [
        f"liked answers: {_percent(before)} at first, {_percent(after)} at the end "
        f"(p = {result['p_value']:.1e})",
        f"{result['versions']} versions from {result['steps']} steps; "
        f"update {_value(result['update_bytes']['p50'], 1e-6, 'MB')}, "
        f"pause {_value(result['update_pause_ms']['p50'], 1, 'ms')}, "
        f"step {_value(result['step_s']['p50'], 1, 's')}",
        f"feedback to served: {_value(result['feedback_to_served_s']['p50'], 1, 's')} (p50), "
        f"{_value(result['feedback_to_served_s']['p95'], 1, 's')} (p95)",
        f"requests: {result['requests']['total']}, failed {result['requests']['failed']}",
        "feedback: " + ", ".join(f"{name} {count}" for name, count in result["feedback"].items()),
        "trajectories: "
        + ", ".join(f"{name} {count}" for name, count in result["trajectories"].items()),
    ]
    if result["audit"] is not None:
        verdict = "balances" if result["audit"]["ok"] else f"{result['audit']['problems']} problems"
        lines.append(f"audit of version {result['audit']['head']}: {verdict}")
    return lines


def _percent(share: dict[str, Any]) -> str:
    if share["mean"] is None:
        return "-"
    return f"{share['mean']:.0%} [{share['low']:.0%}, {share['high']:.0%}]"


def _value(value: float | None, factor: float, unit: str) -> str:
    return "-" if value is None else f"{value * factor:.3g} {unit}"
