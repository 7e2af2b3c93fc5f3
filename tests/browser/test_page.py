"""The page's files as they lie there: no foreign host, no markup from data, every hint known."""

from __future__ import annotations

from pathlib import Path
import re

import pytest

from services.dashboard.app import PAGE
from services.dashboard.picture import FIELDS

SCRIPTS = sorted(PAGE.rglob("*.js"))
STYLES = sorted(PAGE.rglob("*.css"))
FILES = [*SCRIPTS, *STYLES, PAGE / "index.html"]
INKS = {
    "ink": ["ground", "panel", "sunk", *(f"v{number}" for number in range(8))],
    "quiet": ["ground", "panel", "sunk"],
    "accent": ["ground", "panel", "sunk"],
    "on-accent": ["accent"],
    "good": ["ground", "panel", "sunk", "good-ground"],
    "warn": ["ground", "panel", "sunk", "warn-ground"],
    "bad": ["ground", "panel", "sunk", "bad-ground"],
}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(PAGE).as_posix())
def test_a_file_is_short_and_asks_nobody_else(file: Path) -> None:
    text = file.read_text()
    assert text.count("\n") <= 320
    hosts = re.findall(r"https?://[^\s'\"`)]+", text)
    assert set(hosts) <= {"http://www.w3.org/2000/svg"}
    for markup in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert markup not in text


def test_the_frame_has_neither_script_nor_style_in_it() -> None:
    text = (PAGE / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", text)
    for name in re.findall(r"(?:src|href)=\"static/([^\"]+)\"", text):
        assert (PAGE / name).is_file(), name


@pytest.mark.parametrize("file", SCRIPTS, ids=lambda file: file.relative_to(PAGE).as_posix())
def test_imports_lead_to_what_is_exported(file: Path) -> None:
    text = file.read_text()
    for names, target in re.findall(r"import \{([^}]+)\} from '([^']+)'", text):
        exported = re.findall(
            r"export (?:async )?(?:class|function|const) (\w+)",
            (file.parent / target).resolve().read_text(),
        )
        for name in (name.strip() for name in names.split(",") if name.strip()):
            assert name in exported, f"{name} of {target}"
            assert len(re.findall(rf"\b{name}\b", text)) > 1, f"{name} is not used"


def test_every_hint_is_a_field_of_the_picture() -> None:
    text = "".join(file.read_text() for file in SCRIPTS if file.parent.name == "now")
    hints = re.findall(r"hint: '([\w.]+)'|'data-hint': '([\w.]+)'", text)
    named = [one or other for one, other in hints]
    assert len(named) >= 15 and set(named) <= FIELDS.keys()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_ink_can_be_read_on_its_ground(scheme: str) -> None:
    parts = (PAGE / "style" / "base.css").read_text().split("prefers-color-scheme: dark")
    colors = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", parts[scheme == "dark"]))
    for ink, grounds in INKS.items():
        for ground in grounds:
            low, high = sorted((_light(colors[ink]), _light(colors[ground])))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (ink, ground)


def _light(color: str) -> float:
    """Relative luminance, as WCAG 2 has it."""
    parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
