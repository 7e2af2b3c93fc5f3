"""Who may import whom, by a walk over every import of every file, those inside functions too."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
import subprocess
import sys

import pytest

ROOT = Path(__file__).parents[2]
LIBRARY = sorted((ROOT / "shared/tailrace").rglob("*.py"))
SERVICES = sorted((ROOT / "services").rglob("*.py"))
HEAVY = (
    *("torch", "vllm", "faust", "river", "starlette", "numba", "transformers", "redis"),
    *("cryptography", "fsspec", "model_signing", "opentelemetry"),
)


def imports(file: Path) -> Iterator[str]:
    """Full names of what a file imports; ``from a import b`` counts as ``a.b``."""
    for node in ast.walk(ast.parse(file.read_text(), str(file))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and name_of(node.func) in DYNAMIC:
            if isinstance(node.args[0], ast.Constant):
                yield str(node.args[0].value)


DYNAMIC = ("import_module", "__import__", "run_module")


def name_of(function: ast.expr) -> str:
    match function:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
    return ""


def is_in(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def test_the_walk_sees_something():
    assert len(LIBRARY) > 15 and len(SERVICES) > 15
    assert {n for f in LIBRARY for n in imports(f)} > {"json", "tailrace.events"}


@pytest.mark.parametrize("file", LIBRARY, ids=str)
def test_the_library_imports_no_service(file):
    assert not [n for n in imports(file) if is_in(n, "services") or is_in(n, "tests")]


@pytest.mark.parametrize("file", SERVICES, ids=str)
def test_no_service_imports_another_or_a_test(file):
    own = ".".join(file.relative_to(ROOT).parts[:2]).removesuffix(".py")
    crossed = [n for n in imports(file) if is_in(n, "services") and not is_in(n, own)]
    assert not crossed
    assert not [n for n in imports(file) if is_in(n, "tests")]


@pytest.mark.parametrize("file", [*LIBRARY, *SERVICES], ids=str)
def test_only_vllm_imports_the_plugins(file):
    """vLLM finds them by the entry point and by ``--middleware``; they are strings elsewhere."""
    if file.is_relative_to(ROOT / "shared/tailrace/plugins"):
        return
    assert not [n for n in imports(file) if is_in(n, "tailrace.plugins")]


def modules() -> list[str]:
    """Every public module of the library but the plugins."""
    names = []
    for file in LIBRARY:
        parts = file.relative_to(ROOT / "shared").with_suffix("").parts
        if "plugins" not in parts:
            names.append(".".join(parts).removesuffix(".__init__"))
    return names


PROGRAM = """
import sys
from importlib import import_module
for name in sys.argv[1:]:
    import_module(name)
print(" ".join(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def test_importing_the_whole_library_loads_nothing_heavy():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *modules()], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert not {*HEAVY} & {*done.stdout.split()}


def test_importing_tailrace_alone_loads_no_client_at_all():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "tailrace", "tailrace.cli"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    loaded = {*done.stdout.split()}
    heavier = {"confluent_kafka", "httpx", "rich", "fastavro", "numpy", "prometheus_client"}
    assert "tailrace" in loaded and not heavier & loaded


def test_every_public_name_is_there():
    import tailrace

    assert tailrace.__all__ == sorted(tailrace.__all__)
    for name in tailrace.__all__:
        assert getattr(tailrace, name) is not None
        assert name in dir(tailrace)
    assert {*tailrace._HOMES, "events"} == {*tailrace.__all__}
    with pytest.raises(AttributeError):
        tailrace.nonsense  # noqa: B018
