"""Parts of the page on their own, in a browser under a clock of its own."""

from __future__ import annotations

from playwright.sync_api import Page, expect
import pytest

from tests.browser.conftest import Visitor
from tests.browser.stage import Stage

pytestmark = pytest.mark.tools

FATE = """async (how) => {
  const { Fate } = await import('/static/talk/fate.js');
  window.asked = 0;
  const fate = () => {
    window.asked += 1;
    if (how === 'refused') throw new Error('The gateway is away.');
    return new Promise((resolve) => { window.answer = resolve; });
  };
  window.fate = new Fate({ fate }, 'default:chat-1!said', 'good', () => {});
  document.body.append(window.fate.box);
}"""


@pytest.fixture
def page(visitor: Visitor, stage: Stage) -> Page:
    """Its clock stands still until it is moved."""
    made = visitor.open(f"{stage.url}/#talk")
    expect(made.locator("#line")).to_have_text("live")
    made.clock.install()
    return made


def test_a_fate_that_was_stopped_asks_no_more(page: Page) -> None:
    page.evaluate(FATE, "held")
    assert page.evaluate("asked") == 1
    page.evaluate("fate.stop(); answer(null)")
    page.clock.run_for("01:00")
    assert page.evaluate("asked") == 1


def test_a_fate_that_nobody_tells_ends(page: Page) -> None:
    page.evaluate(FATE, "refused")
    box = page.locator(".fate")
    expect(box).to_have_attribute("data-state", "now")
    page.clock.fast_forward("06:00:01")
    expect(box).to_have_attribute("data-state", "ended")
    expect(box).to_contain_text("The gateway is away.")
    asked = page.evaluate("asked")
    page.clock.fast_forward("01:00:00")
    assert page.evaluate("asked") == asked


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/"])
def test_a_gateway_is_found_with_and_without_v1(page: Page, path: str) -> None:
    found = page.evaluate(
        "async (url) => new (await import('/static/talk/gateway.js')).Gateway(url).url",
        f"https://gateway.test/base{path}",
    )
    assert found == "https://gateway.test/base"
