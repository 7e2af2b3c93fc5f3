"""docs/gateway.md names the routes, headers and parameters that there are."""

from __future__ import annotations

import inspect
import re

from services.gateway import app, caller, sampling
from tests.borders.test_imports import ROOT

PAGE = (ROOT / "docs" / "gateway.md").read_text()


def test_every_route_is_on_the_page() -> None:
    found = re.findall(r'Route\("(.*?)", .*methods=\["(\w+)"\]', inspect.getsource(app))
    assert len(found) == 11
    for path, method in found:
        path = path.replace(":path", "").replace("feedback_id", "id")
        rows = [row for row in PAGE.splitlines() if row.startswith("|") and f"`{method} " in row]
        assert any(re.search(rf"[ `]{re.escape(path)}`", row) for row in rows), path


def test_every_term_of_a_request_is_on_the_page() -> None:
    for name in caller._NAMES:
        assert f"| `x-tailrace-{name}` | `tailrace_{name}` |" in PAGE


def test_what_rules_training_out_is_on_the_page() -> None:
    listed = PAGE.partition("## What is not trained on")[2].partition("##")[0]
    assert {*sampling._RESHAPING, "temperature"} <= {*re.findall(r"`(\w+)`", listed)}
