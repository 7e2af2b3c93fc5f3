"""Files are of a readable size, and what the README shows is real Python."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
import re

import pytest

from tests.borders.test_imports import LIBRARY, ROOT, SERVICES

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
OTHERS = sorted([*(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")])
MAX_LINES = 320


@pytest.mark.parametrize("file", [*LIBRARY, *SERVICES, *OTHERS], ids=str)
def test_a_file_is_short_and_says_what_it_is(file):
    text = file.read_text()
    assert text.count("\n") <= MAX_LINES
    tree = ast.parse(text)
    assert not tree.body or ast.get_docstring(tree), "no module docstring"
    assert file.stem not in ("utils", "util", "helpers", "helper", "manager", "misc", "common")


def blocks() -> Iterator[tuple[str, str]]:
    """Every python block of every page, with its place."""
    for page in PAGES:
        text = page.read_text()
        for match in re.finditer(r"```python\n(.*?)```", text, re.DOTALL):
            yield f"{page.name}:{text.count(chr(10), 0, match.start()) + 2}", match[1]


BLOCKS = dict(blocks())


def test_the_readme_has_a_block_for_each_user():
    text = "".join(code for place, code in BLOCKS.items() if place.startswith("README"))
    for shown in (".feedback(", "ModelUpdates(", "read("):
        assert shown in text


@pytest.mark.parametrize("place", BLOCKS)
def test_a_block_is_python_and_its_names_are_there(place):
    tree = ast.parse(BLOCKS[place])
    compile(BLOCKS[place], place, "exec")
    import tailrace

    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("tailrace"):
            module = __import__(str(node.module), fromlist=["x"])
            assert all(hasattr(module, alias.name) for alias in node.names)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id == "tailrace":
                assert hasattr(tailrace, node.attr), node.attr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_paths_lead_somewhere(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), target


def test_nothing_of_this_machine_is_in_the_tree():
    """No absolute home, no path of a checkout."""
    found = []
    for file in [*LIBRARY, *SERVICES, *PAGES, ROOT / "pyproject.toml"]:
        if re.search(r"/(root|work|home/\w+)/", Path(file).read_text()):
            found.append(str(file))
    assert not found
