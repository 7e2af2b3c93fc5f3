"""Expressions of the alerts and the dashboards, and what they ask for."""

from __future__ import annotations

from collections.abc import Iterator
import json
import re
from typing import Any

import promql_parser as promql
import yaml

from tests.metrics.walk import ROOT

ALERTS = ROOT / "k8s/prometheus/alerts.yaml"
DASHBOARDS = sorted((ROOT / "k8s/grafana").glob("*.json"))
OF_TARGETS = {"job", "instance"}
"""Labels that Prometheus adds to whatever it scrapes."""


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[tuple[str, str]]:
    """Where it stands, and the expression; Grafana's variables put in."""
    for rule in alerts():
        yield rule["alert"], rule["expr"]
    for file in DASHBOARDS:
        for panel in panels(json.loads(file.read_text())):
            for target in panel["targets"]:
                where = f"{file.stem}: {panel['title']} {target['refId']}"
                yield where, target["expr"].replace("$__rate_interval", "1m")


def nodes(text: str) -> list[promql.Expr]:
    """Every part of an expression. Raises ValueError for what is none."""
    found: list[promql.Expr] = []
    promql.walk(promql.parse(text), found.append)
    return found


def selected(node: promql.VectorSelector, series: set[str]) -> set[str]:
    """The series of ours that a selector names; all that there are by a pattern."""
    if node.name is not None:
        return {node.name}
    [pattern] = [m for m in node.matchers.matchers if m.name == "__name__"]
    assert pattern.op == promql.MatchOp.Re, "a selector without a name"
    return {one for one in series if re.fullmatch(pattern.value, one)}


def grouped(node: promql.Expr) -> list[str]:
    """The labels that an aggregation or a match names."""
    labels: list[str] = []
    if isinstance(node, promql.AggregateExpr) and node.modifier is not None:
        labels += node.modifier.labels
    elif isinstance(node, promql.BinaryExpr) and node.modifier is not None:
        if node.modifier.matching is not None:
            labels += node.modifier.matching.labels
    return labels
