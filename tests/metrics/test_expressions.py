"""Alerts and dashboards ask only for metrics, labels and values that there are."""

from __future__ import annotations

import ast
import json
import re

from prometheus_client import REGISTRY
import promql_parser as promql
import pytest

from tailrace.settings import SERVICES
from tests.metrics import expressions
from tests.metrics.expressions import ALERTS, DASHBOARDS, OF_TARGETS
from tests.metrics.walk import ROOT, metrics

PAGE = (ROOT / "docs/metrics.md").read_text()
ALL = metrics()
LABELS = {
    series: {*metric.labels} | ({"le"} if series.endswith("_bucket") else set())
    for metric in ALL
    for series in metric.series()
}
"""Of every series of ours."""
OTHERS = {"up"} | {
    family.name + ("_total" if family.type == "counter" else "")
    for family in REGISTRY.collect()
    if family.name.startswith("process_")
}
"""Series that Prometheus and its client make of every process."""
EXPRESSIONS = dict(expressions.expressions())


def words() -> set[str]:
    """Every text that stands in the code as it is."""
    return {
        node.value
        for folder in ("services", "shared/tailrace")
        for file in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


@pytest.mark.parametrize("where", EXPRESSIONS, ids=str)
def test_an_expression_names_only_metrics_and_labels_that_exist(where: str):
    nodes = expressions.nodes(EXPRESSIONS[where])
    there = set(OF_TARGETS)
    for node in nodes:
        if not isinstance(node, promql.VectorSelector):
            continue
        names = expressions.selected(node, {*LABELS})
        assert names and names <= {*LABELS} | OTHERS, names
        for name in names:
            labels = LABELS.get(name, set()) | OF_TARGETS
            assert {m.name for m in node.matchers.matchers} <= labels | {"__name__"}, name
            there |= labels
    for node in nodes:
        assert {*expressions.grouped(node)} <= there
        if isinstance(node, promql.Call) and node.func.name in ("rate", "increase"):
            [matrix] = node.args
            for name in expressions.selected(matrix.vector_selector, {*LABELS}):
                assert re.search("_(total|bucket|sum|count)$", name), f"{name} is no counter"


def test_values_that_expressions_ask_for_are_words_of_the_code():
    known = words()
    for where, text in EXPRESSIONS.items():
        for node in expressions.nodes(text):
            if isinstance(node, promql.VectorSelector):
                for matcher in node.matchers.matchers:
                    if matcher.name == "job":
                        service = matcher.value.removeprefix("tailrace-")
                        assert service in (".+", *SERVICES), where
                    elif matcher.name != "__name__":
                        assert matcher.op == promql.MatchOp.Equal and matcher.value in known, where


def test_every_metric_of_gateway_engine_and_trainer_is_on_a_dashboard_or_in_an_alert():
    shown = {
        name
        for text in EXPRESSIONS.values()
        for node in expressions.nodes(text)
        if isinstance(node, promql.VectorSelector)
        for name in expressions.selected(node, {*LABELS})
    }
    hidden = {
        metric.name
        for metric in ALL
        if metric.service in ("gateway", "engine", "trainer") and not metric.series() & shown
    }
    assert hidden == {"tailrace_trainer_commands_total", "tailrace_trainer_expired_total"}


def test_every_alert_says_what_to_do_and_is_on_the_page():
    alerts = expressions.alerts()
    names = [rule["alert"] for rule in alerts]
    assert len({*names}) == len(names) >= 12
    for rule in alerts:
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert {"summary", "description"} == {*rule["annotations"]}
        for text in rule["annotations"].values():
            for file in re.findall(r"docs/\w+\.md", text):
                assert (ROOT / file).is_file()
            assert {*re.findall(r"tailrace_\w+", text)} <= {*LABELS}
    rows = re.findall(r"^\| `(Tailrace\w+)` \| (\w+) \|", PAGE, re.MULTILINE)
    assert rows == [(rule["alert"], rule["labels"]["severity"]) for rule in alerts]
    assert str(ALERTS.relative_to(ROOT)) in PAGE


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_a_dashboard_can_be_read_by_who_has_never_seen_it(file):
    board = json.loads(file.read_text())
    assert board["uid"] == f"tailrace-{file.stem}" and board["description"]
    assert f"`{file.name}`" in PAGE
    taken: set[tuple[int, int]] = set()
    ids = [panel["id"] for panel in board["panels"]]
    assert len({*ids}) == len(ids)
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert at["x"] + at["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells
    for panel in expressions.panels(board):
        assert panel["title"] and panel["description"].endswith(".")
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["fieldConfig"]["defaults"]["unit"]
        for target in panel["targets"]:
            assert target["legendFormat"], panel["title"]


def test_the_dashboards_are_those_that_the_page_names():
    assert [file.stem for file in DASHBOARDS] == ["engine", "gateway", "system", "trainer"]
