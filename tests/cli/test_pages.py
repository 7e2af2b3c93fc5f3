"""Whatever command line a page shows can be typed: its options and programs are there."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
import re
import shlex
import tomllib

import pytest

from services.local import demo, entrance
from tailrace import cli
from tests.borders.test_files import PAGES
from tests.borders.test_imports import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def lines(page: Path) -> Iterator[list[str]]:
    """The words of each command line of a page, explanations left out."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    for block in (block for language, block in found if not language):
        for line in block.replace("\\\n", " ").splitlines():
            if re.match(r"(uv run )?(tailrace|python) ", line):
                words = shlex.split(line, comments=True)
                yield words[2:] if words[0] == "uv" else words


SHOWN = [(page.name, words) for page in PAGES for words in lines(page)]


def parser(command: str) -> argparse.ArgumentParser:
    """Who reads the options of a command."""
    if command == "demo":
        return demo.parser()
    found = argparse.ArgumentParser()
    entrance.add_options(found)
    return found


@pytest.mark.parametrize("page, words", SHOWN, ids=lambda part: str(part))
def test_a_command_can_be_typed(page: str, words: list[str]) -> None:
    program, name, *options = words
    if program == "python":
        assert name == "-m"
        place = ROOT / options[0].replace(".", "/")
        assert place.with_suffix(".py").exists() or (place / "__main__.py").exists()
    elif name in ("demo", "up"):
        parser(name).parse_args(options)
    else:
        assert cli.parser().parse_args([name, *options]).command == name


def test_pages_show_commands() -> None:
    assert {"README.md", "commands.md", "releases.md", "rollouts.md"} <= {page for page, _ in SHOWN}
    assert len(SHOWN) > 50


def test_extras_that_pages_name_are_there() -> None:
    named = {
        extra
        for page in PAGES
        for extras in re.findall(r"tailrace\[([\w,]+)\]", page.read_text())
        for extra in extras.split(",")
    }
    assert named == {*PROJECT["optional-dependencies"]}
