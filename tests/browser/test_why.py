"""The view *Why*: from prompt to weights and back; what people wrote is text and nothing else."""

from __future__ import annotations

import re
from urllib.parse import quote

from playwright.sync_api import expect
import pytest

from tests.browser.conftest import Visitor
from tests.browser.scene import Scene
from tests.browser.stage import Stage
from tests.gateway.fakevllm import wait_until

pytestmark = pytest.mark.tools

HOSTILE = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"


def trained(scene: Scene, question: str | None = None) -> tuple[str, int]:
    """An interaction that somebody liked or not, and the version that it was trained into."""
    while True:
        interaction = scene.turn(question)
        if scene.waiting[-1][1].feedback_ids:
            return interaction, scene.version()


def test_an_interaction_from_prompt_to_weights(
    visitor: Visitor, stage: Stage, scene: Scene
) -> None:
    interaction, version = trained(scene, "Which lake is the deepest?")
    page = visitor.open(f"{stage.url}/#why")
    search = page.locator("#why-q")
    search.fill("deepest")
    search.press("Enter")
    page.locator(".results a", has_text="Which lake is the deepest?").click()
    expect(page.locator(".rail > li.there")).to_have_count(6)
    chain = page.locator(".rail")
    expect(chain.locator("#chain-asked")).to_contain_text("Which lake is the deepest?")
    expect(chain.locator("#chain-answered .chip").first).to_contain_text("version")
    expect(chain.locator("#chain-said")).to_contain_text("joined")
    expect(chain.locator("#chain-rewarded")).to_contain_text("thumbs")
    expect(chain.locator("#chain-trained")).to_contain_text("reinforce")
    expect(chain.locator("#chain-trained")).to_contain_text("advantage")
    expect(chain.locator("#chain-weights")).to_contain_text(f"version {version}")
    expect(chain.locator("#chain-weights")).to_contain_text("engine-1")
    chain.locator("#chain-weights a", has_text="what moved it").click()
    expect(page).to_have_url(re.compile(f"#why/version/{version}$"))
    page.locator(".version a", has_text=interaction).click()
    expect(page.locator(".head code")).to_have_text(interaction)
    page.go_back()
    expect(page.locator(".version h3")).to_have_text(f"Version {version}")


def test_a_version_has_its_lineage_inputs_and_figures(
    visitor: Visitor, stage: Stage, scene: Scene
) -> None:
    page = visitor.open(f"{stage.url}/#why")
    page.locator("#why-q").fill("5")
    page.locator("#why-q").press("Enter")
    sheet = page.locator(".version")
    expect(sheet.locator("h3")).to_have_text("Version 5")
    expect(sheet.locator(".lineage .here")).to_contain_text("5")
    expect(sheet.locator(".lineage li")).to_have_count(7)
    expect(sheet).to_contain_text("24 trained")
    rows = sheet.locator("table[aria-label='Answers by advantage'] tbody tr")
    expect(rows.first).to_be_visible()
    pulls = [row.locator("td").nth(1).inner_text() for row in rows.all()]
    sizes = [abs(float(text.replace("\u2212", "-"))) for text in pulls]
    assert sizes == sorted(sizes, reverse=True)


def test_html_in_a_prompt_is_text_and_a_long_one_is_cut(
    visitor: Visitor, stage: Stage, scene: Scene
) -> None:
    whole = HOSTILE + "x" * 100_000
    interaction = scene.turn(whole)
    page = visitor.open(f"{stage.url}/#why/interaction/{interaction}")
    asked = page.locator("#chain-asked .said").first
    expect(asked).to_contain_text("<img src=x onerror=")
    expect(asked).to_contain_text("cut, 100,0")
    assert page.locator("#chain-asked img, #chain-asked script").count() == 0
    asked.get_by_role("button", name="Copy whole").click()
    expect(asked.get_by_role("button")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == whole
    page.goto(f"{stage.url}/#why?q=onerror")
    expect(page.locator(".results li").first).to_contain_text("<img src=x")
    page.goto(f"{stage.url}/#tail/prompts?filter=onerror")
    page.locator(".records summary").first.click()
    expect(page.locator(".whole pre").first).to_contain_text("<img src=x")
    assert page.title() == "Tail \u00b7 tailrace" and page.locator("main img").count() == 0


def test_what_is_looked_for_again_is_read_again(
    visitor: Visitor, stage: Stage, scene: Scene
) -> None:
    page = visitor.open(f"{stage.url}/#why?q=heronry")
    status = page.locator("#panel-why .status")
    expect(status).to_contain_text("Nothing found.")

    def told() -> None:
        newest = scene.turn("What is a heronry?")
        wait_until(
            lambda: newest in page.request.get(f"{stage.url}/api/search?q=heronry").text(),
            "the index",
        )

    told()
    page.locator("#why-q").press("Enter")
    expect(status).to_contain_text("1 interaction,")
    page.locator("#tab-now").click()
    expect(page.locator("#panel-why")).to_be_hidden()
    told()
    page.locator("#tab-why").click()
    expect(status).to_contain_text("2 interactions,")


@pytest.mark.parametrize(
    ("whole", "missing"),
    [
        ("default:chat-1!said", "default:chat-1!said"),
        ("default:chat-1~1M3250V00BAQP!said", "default:chat-1~1M3250V00BAQP"),
    ],
)
def test_the_id_of_a_feedback_leads_to_its_why(
    visitor: Visitor, stage: Stage, whole: str, missing: str
) -> None:
    visitor.expected = ("404",)
    page = visitor.open(f"{stage.url}/#why")
    page.locator("#why-q").fill(whole)
    page.locator("#why-q").press("Enter")
    expect(page).to_have_url(f"{stage.url}/#why/interaction/{quote(whole, safe='!~')}")
    expect(page.locator("#panel-why .status")).to_contain_text(f"'{missing}'")
    page.locator("#why-q").fill("well!said")
    page.locator("#why-q").press("Enter")
    expect(page).to_have_url(f"{stage.url}/#why?q=well%21said")


@pytest.mark.parametrize(
    "name", ["version/4711", "interaction/default:none~1M3250V00BAQP", "interaction/%20?"]
)
def test_what_is_not_there_is_said(visitor: Visitor, stage: Stage, name: str) -> None:
    visitor.expected = ("404", "400")
    page = visitor.open(f"{stage.url}/#why/{name}")
    expect(page.locator("#panel-why .status")).not_to_have_text(re.compile("^(reading the log)?$"))
    assert page.locator(".rail, .version").count() == 0
