"""Every metric that the code makes, as objects and as the rows of docs/metrics.md.

``python -m tests.metrics.walk`` prints the rows, to be put into the page.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from services.rewards.metrics import Metrics

ROOT = Path(__file__).parents[2]
KINDS = {"Counter", "Gauge", "Histogram", "Summary", "Info", "Enum"}
LIBRARY = ("weights", "wire")
"""The words in the names of the library's own metrics, whichever process they are counted in."""


class Metric(NamedTuple):
    """What docs/metrics.md has a row of."""

    name: str
    """As on /metrics, without ``_bucket``, ``_sum``, ``_count``."""
    kind: str
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...]
    """Of a histogram, without the infinite one."""

    @property
    def service(self) -> str:
        return self.name.split("_")[1]

    def row(self) -> str:
        """Its line in the page."""
        labels = ", ".join(f"`{label}`" for label in self.labels)
        return f"| `{self.name}` | {self.kind} | {labels} | {self.help} |"

    def series(self) -> set[str]:
        """The names that an expression may ask for."""
        if self.kind == "histogram":
            return {f"{self.name}{end}" for end in ("_bucket", "_sum", "_count")}
        return {self.name}


def calls() -> Iterator[tuple[Path, str]]:
    """File and name of every metric that is made anywhere, by the text alone."""
    for folder in ("services", "shared/tailrace"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            tree = ast.parse(file.read_text())
            made = {
                alias.asname or alias.name
                for node in ast.walk(tree)
                if isinstance(node, ast.ImportFrom) and node.module == "prometheus_client"
                for alias in node.names
            } & KINDS
            for node in ast.walk(tree):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                    if node.func.id in made:
                        assert isinstance(node.args[0], ast.Constant), f"{file}:{node.lineno}"
                        yield file, str(node.args[0].value)


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[1:] if parts[0] == "shared" else parts)


def metrics() -> list[Metric]:
    """All of them, each once, by name."""
    objects: dict[int, MetricWrapperBase] = {}
    for name in sorted({module_of(file) for file, _ in calls()}):
        for value in vars(import_module(name)).values():
            if isinstance(value, MetricWrapperBase):
                objects[id(value)] = value
    for value in vars(Metrics(CollectorRegistry())).values():
        objects[id(value)] = value
    return sorted(_of(value) for value in objects.values())


def _of(made: MetricWrapperBase) -> Metric:
    # Their labels are nowhere public before they have values.
    [family] = made.describe()
    counter = "_total" if family.type == "counter" else ""
    bounds = tuple(getattr(made, "_upper_bounds", ()))
    labels = tuple(made._labelnames)
    return Metric(family.name + counter, family.type, labels, family.documentation, bounds[:-1])


if __name__ == "__main__":
    for metric in metrics():
        print(metric.row())
