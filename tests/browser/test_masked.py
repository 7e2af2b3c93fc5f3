"""A page that masks says that it does: nothing is null, nothing is said to have no content."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import expect
import pytest

from tailrace import topics
from tests.browser.conftest import Visitor
from tests.browser.scene import Scene
from tests.browser.stage import Stage

pytestmark = pytest.mark.tools

LEFT_OUT = "This page leaves out what people wrote and were answered."


@pytest.fixture
def masked(scene: Scene, tmp_path: Path) -> Iterator[Stage]:
    made = Stage(scene.log, tmp_path, mask_content=True)
    yield made
    made.close()


def test_what_is_left_out_is_said(visitor: Visitor, masked: Stage, scene: Scene) -> None:
    interaction = scene.turn("What must nobody see?")
    page = visitor.open(f"{masked.url}/#why/interaction/{interaction}")
    expect(page.locator("#chain-asked")).to_contain_text(LEFT_OUT)
    answered = page.locator("#chain-answered")
    expect(answered).to_contain_text(LEFT_OUT)
    answered.locator("summary").first.click()
    tokens = answered.locator(".token")
    expect(tokens.first).to_have_text("\u2022")
    chain = page.locator(".chain").inner_text()
    assert "null" not in chain and "no content" not in chain
    page.goto(f"{masked.url}/#why")
    expect(page.locator(".results li").first).to_contain_text("its content is left out")


def test_a_refused_record_has_its_reason_alone(
    visitor: Visitor, masked: Stage, scene: Scene
) -> None:
    page = visitor.open(f"{masked.url}/#tail/feedback")
    expect(page.locator(".records li").first).to_be_visible()
    scene.producer.append(topics.FEEDBACK.name, b"\x00\xff<b>no record</b>", key=b"k").result()
    wrong = page.locator(".records .wrong").first
    expect(wrong).to_be_visible()
    assert "null" not in wrong.inner_text()
