"""The view *Tail*: decoded as it comes, filtered, paused, copied; the page stays small."""

from __future__ import annotations

import json

from playwright.sync_api import Route, expect
import pytest

from tailrace import topics
from tests.browser.conftest import Visitor
from tests.browser.scene import Scene
from tests.browser.stage import Stage

pytestmark = pytest.mark.tools


def test_a_topic_is_followed_filtered_and_paused(
    visitor: Visitor, stage: Stage, scene: Scene
) -> None:
    page = visitor.open(f"{stage.url}/#tail/prompts")
    rows = page.locator(".records li")
    expect(rows.first).to_be_visible()
    newest = scene.turn("one that can be found")
    expect(rows.first).to_contain_text(newest)
    page.get_by_label("filter").fill("found")
    page.get_by_label("filter").press("Enter")
    expect(rows).to_have_count(1)
    page.get_by_role("button", name="Pause").click()
    later = scene.turn("another that is found later")
    expect(page.locator("#panel-tail .status")).to_contain_text("Paused")
    expect(rows).to_have_count(1)
    page.get_by_role("button", name="Go on").click()
    expect(rows).to_have_count(2)
    expect(rows.first).to_contain_text(later)
    rows.first.locator("summary").click()
    rows.first.get_by_role("button", name="Copy as JSON").click()
    expect(rows.first.get_by_role("button")).to_have_text("Copied")
    copied = json.loads(page.evaluate("navigator.clipboard.readText()"))
    assert copied["event"]["interaction_id"] == later and copied["topic"] == "prompts"


def test_the_rows_are_bounded(visitor: Visitor, stage: Stage, scene: Scene) -> None:
    page = visitor.open(f"{stage.url}/#tail/outputs")
    rows = page.locator(".records li")
    expect(rows.first).to_be_visible()
    for _ in range(500):
        last = scene.turn()
    # Partitions are read one after the other: the last need not be the first row.
    expect(page.locator(".records")).to_contain_text(last)
    assert rows.count() <= 300


def test_a_pause_without_a_topic_is_none(visitor: Visitor, stage: Stage) -> None:
    visitor.expected = ("net::ERR_FAILED",)
    page = visitor.open(stage.url)
    page.route("**/api/about", lambda route: route.abort(), times=1)
    page.locator("#tab-tail").click()
    status = page.locator("#panel-tail .status")
    expect(status).to_contain_text("does not answer")
    pause = page.get_by_role("button", name="Pause")
    pause.click()
    pause.click()
    expect(status).to_contain_text("does not answer")
    page.locator("#tab-now").click()
    page.locator("#tab-tail").click()
    expect(status).to_contain_text("Following prompts")


def test_foreign_bytes_are_shown_as_such(visitor: Visitor, stage: Stage, scene: Scene) -> None:
    page = visitor.open(f"{stage.url}/#tail/feedback")
    expect(page.locator(".records li").first).to_be_visible()
    scene.producer.append(topics.FEEDBACK.name, b"\x00\xff<b>no record</b>", key=b"k").result()
    expect(page.locator(".records .wrong").first).to_be_visible()
    page.goto(f"{stage.url}/#tail/nowhere")
    expect(page.locator("#panel-tail .status")).to_have_text("There is no topic nowhere.")


def test_who_left_before_the_topics_were_known_follows_none(visitor: Visitor, stage: Stage) -> None:
    page = visitor.open(stage.url)
    asked: list[str] = []
    held: list[Route] = []
    page.on("request", lambda request: asked.append(request.url))
    page.route("**/api/about", lambda route: held.append(route), times=1)
    with page.expect_request("**/api/about"):
        page.locator("#tab-tail").click()
    page.locator("#tab-now").click()
    expect(page.locator("#panel-tail")).to_be_hidden()
    with page.expect_response("**/api/about"):
        held[0].continue_()
    # What follows upon the answer has begun when a later question is answered.
    page.evaluate("fetch('api/fields').then((answer) => answer.text()).then(() => null)")
    assert [url for url in asked if "/api/tail" in url] == []
    page.locator("#tab-tail").click()
    expect(page.locator(".records li").first).to_be_visible()
