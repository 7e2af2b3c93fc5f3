"""The view *Talk*: what a person says of an answer reaches the weights before their eyes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
import re
from typing import Any

from playwright.sync_api import Locator, Page, Route, expect
import pytest

from tests.browser.conftest import Visitor
from tests.browser.town import Town

pytestmark = [pytest.mark.tools, pytest.mark.kafka]


@pytest.fixture(scope="module")
def town(
    broker: Any, redis_server: Any, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Town]:
    made = Town(
        broker.bootstrap, redis_server.url, "talk.", tiny_model, tmp_path_factory.mktemp("town")
    )
    yield made
    made.close()


def ask(page: Page, question: str) -> Locator:
    """The newest answer, once it is whole."""
    page.locator("#question").fill(question)
    page.locator("#question").press("Enter")
    answer = page.locator(".turn.answer").last
    expect(answer).to_have_attribute("aria-busy", "false")
    return answer


def joined(fate: Locator) -> None:
    """Once its answer is found; where the answer was closed before, that is corrected."""
    done = fate.locator("li[data-state='done']", has_text=re.compile("^(joined|corrected)"))
    expect(done).to_be_visible(timeout=60_000)


def test_a_thumb_becomes_joined_trained_and_served(
    visitor: Visitor, town: Town, pictures: Path
) -> None:
    page = visitor.open(f"{town.url}/#talk")
    answer = ask(page, "Where does the river go? <b>Tell</b>")
    expect(page.locator(".turn.question")).to_have_text("Where does the river go? <b>Tell</b>")
    expect(answer.locator(".words")).to_have_text("The river runs")
    expect(answer.locator(".meta .chip")).to_have_text("version 7")
    # The log's own tokens take the place of those that were streamed.
    expect(answer).to_have_attribute("data-read", "log")
    expect(answer.locator(".token.v-7")).to_have_count(4)
    answer.get_by_role("button", name="Good").click()
    way = answer.locator(".fate .stations")
    joined(way)
    interaction = answer.get_attribute("data-interaction")
    assert interaction is not None
    town.train(interaction, 8)
    expect(way).to_contain_text("trained in version 8", timeout=30_000)
    town.serve(8)
    expect(way).to_contain_text("serving since", timeout=30_000)
    second = ask(page, "And then?")
    expect(page.locator(".remark")).to_contain_text("version 8 learned from what you said")
    expect(second.locator(".token.v-7")).to_have_count(1)
    expect(second.locator(".token.v-0")).to_have_count(3)
    expect(second.locator(".legend")).to_contain_text("version 8 3 tokens")
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 900})
        page.screenshot(path=pictures / f"talk-{width}.png")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    again = second.get_attribute("data-interaction")
    assert again is not None and again.partition("~")[0] == interaction.partition("~")[0]


def test_edits_and_comments_are_feedback_too(visitor: Visitor, town: Town) -> None:
    page = visitor.open(f"{town.url}/#talk")
    answer = ask(page, "What runs?")
    answer.get_by_role("button", name="Edit").click()
    words = answer.get_by_label("What the answer should have been")
    expect(words).to_have_value("The river runs")
    words.fill("The river runs to the sea.")
    answer.get_by_role("button", name="Send").click()
    answer.get_by_role("button", name="Comment").click()
    answer.get_by_label("Your comment").fill("Too short <i>by far</i>")
    answer.get_by_role("button", name="Send").click()
    ways = answer.locator(".fate")
    expect(ways).to_have_count(2)
    expect(ways.nth(1)).to_contain_text("Too short <i>by far</i>")
    for way in ways.all():
        joined(way)
    interaction = answer.get_attribute("data-interaction")
    assert interaction is not None
    assert town.trajectory(interaction)[1].content.demonstration == "The river runs to the sea."  # type: ignore[union-attr]


def test_another_mind_replaces_the_first(visitor: Visitor, town: Town) -> None:
    page = visitor.open(f"{town.url}/#talk")
    answer = ask(page, "Is it so?")
    answer.get_by_role("button", name="Good").click()
    expect(answer.locator(".fate")).to_have_count(1)
    answer.get_by_role("button", name="Bad").click()
    expect(answer.locator(".fate")).to_have_count(2)
    expect(answer.get_by_role("button", name="Bad")).to_have_attribute("aria-pressed", "true")
    expect(answer.locator(".fate").first).to_contain_text("replaced", timeout=60_000)


def test_a_thumb_that_failed_can_be_given_again(visitor: Visitor, town: Town) -> None:
    visitor.expected = ("net::ERR_FAILED",)
    page = visitor.open(f"{town.url}/#talk")
    answer = ask(page, "Can it fail?")
    good, bad = (answer.get_by_role("button", name=name) for name in ("Good", "Bad"))
    page.route("**/v1/feedback", lambda route: route.abort(), times=1)
    good.click()
    expect(answer.locator(".ways .wrong")).to_contain_text("does not answer")
    expect(good).to_have_attribute("aria-pressed", "false")
    good.click()
    expect(answer.locator(".fate")).to_have_count(1)
    expect(good).to_have_attribute("aria-pressed", "true")
    page.route("**/v1/feedback", lambda route: route.abort(), times=1)
    bad.click()
    expect(answer.locator(".ways .wrong")).to_have_count(2)
    expect(good).to_have_attribute("aria-pressed", "true")
    expect(bad).to_have_attribute("aria-pressed", "false")


def test_thumbs_do_not_overtake_each_other(visitor: Visitor, town: Town) -> None:
    page = visitor.open(f"{town.url}/#talk")
    answer = ask(page, "Quick or slow?")
    good, bad = (answer.get_by_role("button", name=name) for name in ("Good", "Bad"))
    held: list[Route] = []
    page.route("**/v1/feedback", lambda route: held.append(route), times=1)
    with page.expect_request("**/v1/feedback"):
        good.click()
    expect(good).to_be_disabled()
    bad.dispatch_event("click")
    expect(bad).to_have_attribute("aria-pressed", "false")
    expect(answer.locator(".ways .quiet")).to_have_count(1)
    held[0].continue_()
    expect(bad).to_be_enabled()
    expect(good).to_be_focused()
    expect(answer.locator(".fate")).to_have_count(1)
    with page.expect_request(lambda one: one.method == "POST") as asked:
        bad.click()
    said: Any = asked.value.post_data_json
    assert said["replaces"] == answer.locator(".fate").first.get_attribute("data-feedback")


def test_an_engine_that_fails_is_said(visitor: Visitor, town: Town) -> None:
    visitor.expected = ("status of 400",)
    page = visitor.open(f"{town.url}/#talk")
    town.vllm.refuse = [(400, "this engine has had enough")]
    answer = ask(page, "Still there?")
    expect(answer).to_have_attribute("data-state", "bad")
    expect(answer.locator(".wrong")).not_to_be_empty()
    again = ask(page, "And now?")
    expect(again.locator(".tokens")).to_have_text("The river runs")
