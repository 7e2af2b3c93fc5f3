"""The wheel, built and installed alone: it holds the library and nothing heavy comes with it."""

from __future__ import annotations

import os
from pathlib import Path
import shutil
import subprocess
import sys
import zipfile

import pytest

from tailrace import schemas
from tests.borders.test_imports import HEAVY, PROGRAM, ROOT, modules


def uv(*arguments: object) -> None:
    program = os.environ.get("UV") or shutil.which("uv") or "uv"
    clean = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH")}
    command = [program, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=clean, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    uv("build", "--wheel", "--out-dir", folder)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory) -> Path:
    """An interpreter with the wheel and what it depends on, nothing else."""
    folder = tmp_path_factory.mktemp("bare")
    uv("venv", "--python", sys.executable, folder / "venv")
    interpreter = folder / "venv/bin/python"
    uv("pip", "install", "--python", interpreter, wheel)
    return interpreter


def run(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "TAILRACE"))}
    return subprocess.run(
        [str(python), *arguments],
        cwd=python.parent,
        env=clean,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_wheel_holds_the_library_only(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"tailrace"}
    inside = {name for name in names if name.startswith("tailrace/")}
    code = {str(f.relative_to(ROOT / "shared")) for f in (ROOT / "shared").rglob("*.py")}
    contracts = {f"tailrace/schemas/{file.name}" for file in schemas.FOLDER.iterdir()}
    assert inside == code | contracts | {"tailrace/py.typed"}
    assert any(name.endswith("LICENSE") for name in names)


def test_nothing_heavy_comes_with_it(python):
    done = run(python, "-c", PROGRAM, *modules())
    assert done.returncode == 0, done.stderr
    assert not {*HEAVY} & {*done.stdout.split()}
    for name in HEAVY:
        found = run(python, "-c", f"import importlib.util as u; print(u.find_spec({name!r}))")
        assert found.stdout == "None\n", name


def test_it_knows_its_schemas_there(python):
    program = (
        "import tailrace; from tailrace.wire import Wire; from tailrace import events\n"
        "alarm = events.Alarm(stream='s', event_time_ms=1)\n"
        "assert Wire().decode(events.Alarm, Wire().encode(alarm)) == alarm\n"
        "print(tailrace.__file__)"
    )
    done = run(python, "-c", program)
    assert done.returncode == 0, done.stderr
    assert str(python.parents[1]) in done.stdout


def test_the_command_is_there_and_says_what_needs_a_checkout(python):
    command = python.with_name("tailrace")
    assert run(command, "--help").returncode == 0
    refused = run(command, "demo")
    assert refused.returncode == 2
    assert "checkout" in refused.stderr
