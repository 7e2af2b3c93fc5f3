"""Every service that is there refuses a typo in its settings, at once and by name."""

from __future__ import annotations

import ast
import subprocess
import sys
import time

import pytest

from tailrace.settings import SERVICES
from tests.borders.test_imports import ROOT

FOLDERS = sorted(file.parent for file in (ROOT / "services").glob("*/__main__.py"))
NAMES = [folder.name for folder in FOLDERS]


def test_every_folder_is_a_service_of_the_table():
    assert {*NAMES} <= {*SERVICES}


@pytest.mark.parametrize("folder", FOLDERS, ids=NAMES)
def test_a_typo_ends_with_2_and_the_key(folder, tmp_path):
    file = tmp_path / "settings.toml"
    file.write_text(f"[{folder.name}]\nno_such_key = 1\n")
    command = [sys.executable, "-m", f"services.{folder.name}"]
    command += ["up"] if folder.name == "local" else []
    began = time.monotonic()
    done = subprocess.run(
        [*command, "--settings", str(file)], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2, done.stderr
    assert "no_such_key" in done.stderr
    assert "Traceback" not in done.stderr
    assert time.monotonic() - began < 30, "settings are read after the heavy imports"


@pytest.mark.parametrize("folder", FOLDERS, ids=NAMES)
def test_every_field_of_its_settings_is_documented(folder):
    undocumented = []
    for node in ast.walk(ast.parse((folder / "settings.py").read_text())):
        if isinstance(node, ast.ClassDef) and node.name == "Settings":
            for field, after in zip(node.body, [*node.body[1:], None], strict=True):
                documented = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                if isinstance(field, ast.AnnAssign) and not documented:
                    undocumented.append(ast.unparse(field.target))
    assert not undocumented


def test_nothing_below_a_main_reads_the_environment():
    """The local runner is left out: it hands its own environment on to its children."""
    reading = []
    for file in sorted((ROOT / "services").rglob("*.py")):
        if file.name == "__main__.py" or file.is_relative_to(ROOT / "services/local"):
            continue
        nodes = ast.walk(ast.parse(file.read_text()))
        touched = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        if {"environ", "getenv"} & touched:
            reading.append(str(file.relative_to(ROOT)))
    assert not reading
