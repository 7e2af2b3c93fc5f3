"""Labels whose values a record brings along stay few."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter

from services.trainer import metrics


def test_the_reasons_of_a_trainer_s_decisions_are_at_most_a_hundred_and_other(monkeypatch):
    counter = Counter("decisions", "", ("outcome", "reason"), registry=CollectorRegistry())
    monkeypatch.setattr(metrics, "DECISIONS", counter)
    monkeypatch.setattr(metrics, "_reasons", set())
    metrics.decided("trained", "")
    for number in range(300):
        metrics.decided("untrainable", f"made up {number}")
    metrics.decided("trained", "")
    [family] = counter.collect()
    counts = {s.labels["reason"]: s.value for s in family.samples if s.name.endswith("_total")}
    assert len(counts) == 101 and counts[""] == 2 and counts["other"] == 201
