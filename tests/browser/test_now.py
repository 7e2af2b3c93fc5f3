"""The view *Now*: figures move, add up and say what they mean; a lost line comes back."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect
import pytest

from tests.browser.conftest import Visitor
from tests.browser.scene import Scene
from tests.browser.stage import Stage

pytestmark = pytest.mark.tools


def lamp(page: Page, name: str) -> str:
    """What the lamp of this name says."""
    return str(page.locator(f".lamp[data-name='{name}'] strong").inner_text())


def numbers(texts: list[str]) -> int:
    """The sum of the numbers with which texts begin."""
    return sum(int(text.split()[0].replace(",", "")) for text in texts)


def test_the_figures_move_with_the_log(visitor: Visitor, stage: Stage, scene: Scene) -> None:
    page = visitor.open(stage.url)
    serving = page.locator(".lamp[data-name='serving'] strong")
    expect(serving).to_have_text(f"version {scene.head}")
    expect(page.locator("#line")).to_have_text("live")
    answers = page.locator(".account-line", has_text="trajectories").locator(".total strong")
    before = int(answers.inner_text().replace(",", ""))
    for _ in range(6):
        scene.turn()
    expect(answers).to_have_text(f"{before + 6:,}")
    version = scene.version()
    expect(serving).to_have_text(f"version {version}")
    row = page.locator(".versions tbody tr").first
    expect(row.locator("td").first).to_have_text(str(version))
    expect(row).to_contain_text("serves on engine-0, engine-1")


def test_the_account_adds_up_in_view(visitor: Visitor, stage: Stage) -> None:
    page = visitor.open(stage.url)
    lines = page.locator(".account-line")
    expect(page.locator(".account .badge")).to_have_text("balances")
    expect(lines.first).to_be_visible()
    for line in lines.all():
        total = int(line.locator(".total strong").inner_text().replace(",", ""))
        assert total == numbers(line.locator(".sum li").all_inner_texts())


def test_every_figure_says_what_it_means(visitor: Visitor, stage: Stage) -> None:
    page = visitor.open(stage.url)
    expect(page.locator(".figures dt").first).to_be_visible()
    known = page.evaluate("fetch('api/fields').then((answer) => answer.json())")
    named = page.locator("#panel-now [data-hint]")
    hints = [one.get_attribute("data-hint") for one in named.all()]
    assert len(hints) > 60 and [hint for hint in hints if hint not in known] == []
    word = page.get_by_text("first token", exact=True)
    word.hover()
    expect(page.locator("#hint")).to_contain_text("Median time to the first token")
    page.keyboard.press("Escape")
    expect(page.locator("#hint")).to_be_hidden()
    page.locator(".lamp").first.focus()
    expect(page.locator("#hint")).to_contain_text("by all with a reward")
    assert page.locator(".lamp").first.get_attribute("aria-describedby") == "hint"


def test_a_chart_is_read_by_keyboard(visitor: Visitor, stage: Stage, scene: Scene) -> None:
    page = visitor.open(stage.url)
    chart = page.locator(".versions .plot")
    readout = page.locator(".versions .readout")
    expect(readout).to_contain_text(f"version {scene.head}")
    chart.focus()
    page.keyboard.press("Home")
    expect(readout).to_contain_text("version 0 ")
    page.keyboard.press("ArrowRight")
    expect(readout).to_contain_text("version 1 ")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("#why/version/1$"))
    expect(page.locator(".version h3")).to_have_text("Version 1")


def test_the_tabs_are_a_tab_list(visitor: Visitor, stage: Stage) -> None:
    page = visitor.open(stage.url)
    page.keyboard.press("Tab")
    skip = page.locator(".skip")
    expect(skip).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#view")).to_be_focused()
    page.locator("#tab-now").focus()
    for name in ("talk", "why", "tail", "now"):
        page.keyboard.press("ArrowRight")
        expect(page.locator(f"#tab-{name}")).to_be_focused()
        expect(page.locator(f"#tab-{name}")).to_have_attribute("aria-selected", "true")
        expect(page.locator(f"#panel-{name}")).to_be_visible()
    assert page.locator("[role=tabpanel]:visible").count() == 1


def test_keys_with_a_modifier_are_the_browsers_own(visitor: Visitor, stage: Stage) -> None:
    page = visitor.open(stage.url)
    page.locator("#tab-now").focus()
    page.keyboard.press("Control+End")
    page.keyboard.press("Alt+ArrowRight")
    expect(page.locator("#tab-now")).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#tab-talk")).to_be_focused()
    page.goto(f"{stage.url}/#now")
    chart, readout = page.locator(".versions .plot"), page.locator(".versions .readout")
    expect(chart.locator("rect").first).to_be_visible()
    chart.focus()
    page.keyboard.press("Home")
    page.keyboard.press("Control+End")
    page.keyboard.press("Meta+ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(readout).to_contain_text("version 1 ")


def test_a_lost_line_is_said_and_comes_back(visitor: Visitor, scene: Scene, tmp_path) -> None:
    visitor.expected = ("net::ERR_",)
    stage = Stage(scene.log, tmp_path)
    page = visitor.open(stage.url)
    line = page.locator("#line")
    expect(line).to_have_attribute("data-state", "live")
    stage.close()
    expect(line).to_have_attribute("data-state", "lost")
    expect(line).to_contain_text("lost")
    again = Stage(scene.log, tmp_path, port=stage.port)
    expect(line).to_have_attribute("data-state", "live", timeout=20_000)
    scene.turn()
    version = scene.version()
    expect(page.locator(".lamp[data-name='serving'] strong")).to_have_text(f"version {version}")
    again.close()
