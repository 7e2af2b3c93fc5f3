"""Labels whose values a record brings along stay few; what is counted from a picture follows it."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter

from services.dashboard import metrics as dashboard
from services.dashboard.system import Account, Line
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


def test_what_the_conservation_table_misses_is_a_gauge_by_its_lines():
    missing = Line(name="feedback", records=5, missing=2, unaccounted=-1)
    dashboard.accounted(Account(lines=[missing, Line(name="answers")]))
    [family] = dashboard.UNACCOUNTED.collect()
    found = {s.labels["line"]: s.value for s in family.samples}
    assert (found["feedback"], found["answers"]) == (3, 0)
    dashboard.accounted(Account(lines=[Line(name="feedback"), Line(name="answers")]))
    [family] = dashboard.UNACCOUNTED.collect()
    assert {s.value for s in family.samples} == {0}
