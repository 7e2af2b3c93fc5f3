"""The example is right: its spec loads, its function grades."""

from __future__ import annotations

from typing import Any

from services.graders import spec
from services.graders.functions import request
from services.graders.settings import Settings
from services.local.document import read
from tailrace.functions.calls import Child
from tailrace.settings import load
from tests.borders.test_imports import ROOT
from tests.graders.scene import an_item

FOLDER = ROOT / "examples/graders"


def test_the_settings_name_a_spec_that_loads() -> None:
    settings = load(Settings, "graders", {}, FOLDER / "tailrace.toml")
    assert settings.spec is not None
    graders = spec.load(settings.spec, settings.keys)
    assert ({*graders.functions}, {*graders.judges}) == ({"sums"}, {"helpful"})
    document: dict[str, Any] = read(FOLDER / "tailrace.toml", {})
    assert {"graders", "rewards"} <= {*document["local"]["services"]}


def test_the_function_grades() -> None:
    file = FOLDER / "sums.py"
    child = Child(str(file), "reward", file.read_bytes())
    items = [
        an_item(answer="2 + 2 is 4", columns={"solution": "4"}),
        an_item(answer="5", columns={"solution": "4"}),
        an_item(answer="4"),
    ]
    try:
        assert child.call(request(items), 20.0) == [1.0, 0.0, None]
        assert child.call(request([an_item()]), 20.0) == [None]
    finally:
        child.close()
