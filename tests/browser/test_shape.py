"""Each view at the widths of a phone, a desk and a wall, light and dark: nothing is cut off."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import expect
import pytest

from tests.browser.conftest import Visitor
from tests.browser.scene import Scene
from tests.browser.stage import Stage

pytestmark = pytest.mark.tools

WIDTHS = {390: 844, 1280: 900, 1920: 1080}
CONTRASTS = """() => {
  const channels = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => channels(color).slice(0, 3)
    .map((c) => c / 255)
    .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, at) => sum + c * [0.2126, 0.7152, 0.0722][at], 0);
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if ((channels(color)[3] ?? 1) > 0) return color;
    }
    return 'rgb(255, 255, 255)';
  };
  const poor = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || !element.checkVisibility()) continue;
    const svg = element.closest('svg');
    const style = getComputedStyle(element);
    const pair = [light(svg ? style.fill : style.color), light(ground(element))];
    const contrast = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    if (contrast < 4.5) poor.push(`${walk.currentNode.data.slice(0, 40)}: ${contrast.toFixed(2)}`);
  }
  return poor;
}"""
OVERFLOW = """() => [document.documentElement.scrollWidth, innerWidth,
  [...document.querySelectorAll('main *')]
    .filter((one) => one.checkVisibility() && !one.closest('.scroll, svg, summary, .away')
      && one.getBoundingClientRect().right > innerWidth + 1)
    .map((one) => one.outerHTML.slice(0, 120)).slice(0, 5)]"""


SHOWN = {
    "now": ".versions .plot rect",
    "talk": "#question",
    "why": ".results li",
    "chain": ".rail li",
    "version": ".version h3",
    "tail": ".records li",
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_overflows_and_all_can_be_read(
    visitor: Visitor, stage: Stage, scene: Scene, pictures: Path, width: int, scheme: str
) -> None:
    wide = scene.turn("A" * 400 + " <b>bold</b> " + "word " * 400)
    views = {
        "now": "now",
        "talk": "talk",
        "why": "why",
        "chain": f"why/interaction/{wide}",
        "version": f"why/version/{scene.head}",
        "tail": "tail/prompts",
    }
    page = visitor.open(
        stage.url, width=width, height=WIDTHS[width], color_scheme=scheme, reduced_motion="reduce"
    )
    for name, address in views.items():
        page.evaluate("(hash) => { location.hash = hash; }", address)
        expect(page.locator(SHOWN[name]).first).to_be_visible()
        page.screenshot(path=pictures / f"{name}-{width}-{scheme}.png", full_page=True)
        scroll, inner, out = page.evaluate(OVERFLOW)
        assert scroll <= inner and out == [], name
        assert page.evaluate(CONTRASTS) == [], name
