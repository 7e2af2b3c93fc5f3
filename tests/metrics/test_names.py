"""Every metric: its name, unit, help, labels and buckets, and its row in docs/metrics.md."""

from __future__ import annotations

import re

from prometheus_client import CONTENT_TYPE_LATEST
import pytest

from tests.metrics.walk import LIBRARY, ROOT, Metric, calls, metrics

PAGE = (ROOT / "docs/metrics.md").read_text()
ALL = metrics()
UNITS = {
    *("total", "seconds", "bytes", "ratio", "version", "versions", "value"),
    *("answers", "entries", "groups", "outputs", "partitions", "records", "requests", "ticks"),
    *("streams", "tokens", "values"),
}
NEVER = {
    *("id", "session", "session_id", "interaction", "user", "tenant", "principal", "key", "path"),
    *("url", "text", "message", "offset", "partition", "version", "feedback", "tag", "traceparent"),
}
"""Labels with as many values as there are people, requests, records or versions."""


def table(title: str) -> list[list[str]]:
    """The cells of every row of every table under a heading."""
    part = PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    assert part, title
    rows = [line for line in part.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


def test_the_walk_finds_every_metric_that_the_code_makes():
    made = [(file, name.removesuffix("_total")) for file, name in calls()]
    assert len(made) == len({name for _, name in made}) > 90
    assert {name for _, name in made} == {m.name.removesuffix("_total") for m in ALL}
    for file, name in made:
        service = file.relative_to(ROOT).parts[1]
        assert name.split("_")[1] in (LIBRARY if service == "tailrace" else (service,)), file


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.name)
def test_a_metric_says_what_and_in_which_unit(metric: Metric):
    assert re.fullmatch(r"tailrace(_[a-z]+){3,}", metric.name)
    unit = metric.name.rpartition("_")[2]
    assert unit in UNITS and (unit == "total") == (metric.kind == "counter")
    assert len(metric.help) > 10 and metric.help[-1] not in ".:" and "|" not in metric.help
    assert not NEVER & {*metric.labels} and len(metric.labels) <= 3
    if metric.kind == "histogram":
        assert 4 <= len(metric.buckets) <= 16
        assert list(metric.buckets) == sorted({*metric.buckets})
        if unit == "seconds":
            assert metric.buckets[0] > 0 and metric.buckets[-1] <= 600


def test_the_page_has_a_row_for_every_metric_and_no_other():
    rows = re.findall(r"^\| `tailrace_\w+` \| [a-z]+ \|.*\|$", PAGE, re.MULTILINE)
    assert rows == [metric.row() for metric in ALL], "python -m tests.metrics.walk prints them"


def test_the_page_says_of_every_label_what_its_values_are():
    rows = {row[0].strip("`"): row[1] for row in table("Labels")}
    assert rows.keys() == {label for metric in ALL for label in metric.labels}
    assert all(rows.values())


def test_labels_that_opentelemetry_has_are_called_as_there():
    ours = {row[0].strip("`"): row[1].strip("`,") for row in table("OpenTelemetry's names")}
    labels = {label for metric in ALL for label in metric.labels}
    for name, original in ours.items():
        if name in labels:
            assert name == original.replace(".", "_")
        else:
            assert name in {metric.name for metric in ALL}, name
    # What OpenTelemetry has a name for is under no other one.
    assert not labels & {"model", "token_type", "status", "status_code", "code", "operation"}
    theirs = ("gen_ai_", "http_", "error_")
    assert {label for label in labels if label.startswith(theirs)} <= {*ours}


def test_metrics_are_in_the_format_that_the_page_names():
    assert CONTENT_TYPE_LATEST.split("; charset")[0] in PAGE
