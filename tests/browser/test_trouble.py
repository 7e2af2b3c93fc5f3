"""Pages whose line or whose log fails them: a broker that goes away, a viewer who reads slowly."""

from __future__ import annotations

from pathlib import Path
import re
from urllib.request import urlopen

from playwright.sync_api import CDPSession, expect
import pytest

from tailrace.log.kafka import KafkaLog
from tests.browser.conftest import Visitor
from tests.browser.scene import Scene
from tests.browser.stage import Stage
from tests.conftest import TestBroker
from tests.dashboard.life import Life

pytestmark = pytest.mark.tools

LONG = "x" * 30_000
AT_ONCE = 25
ROUNDS = 40
"""30 MB of records: more than any buffer on the way."""


@pytest.mark.kafka
def test_a_broker_that_goes_away_is_said_and_the_page_goes_on_when_it_is_back(
    visitor: Visitor, own_broker: TestBroker, tmp_path: Path
) -> None:
    visitor.expected = ("status of 50",)
    log = KafkaLog(own_broker.bootstrap)
    life = Life(log)
    turn = life.learn(1.0, 1)
    bounds = {"history_s": 1e9, "lag_s": 0.5, "why_timeout_s": 5.0}
    stage = Stage(log, tmp_path, kafka=own_broker.bootstrap, **bounds)
    page = visitor.open(stage.url)
    tail = visitor.open(f"{stage.url}/#tail/prompts")
    serving, notice = page.locator(".lamp[data-name='serving'] strong"), page.locator(".notice")
    expect(serving).to_have_text("version 1")
    expect(tail.locator(".records li")).to_have_count(1)
    own_broker.kill()
    expect(page.locator(".lamp[data-name='the log']")).to_contain_text("away")
    expect(notice.first).to_contain_text("The broker does not answer, so this picture stands still")
    expect(page.locator("#line")).to_have_text("live")
    expect(serving).to_have_text("version 1")
    expect(tail.locator(".records li")).to_have_count(1)
    why = visitor.open(f"{stage.url}/#why/interaction/{turn}")
    expect(why.locator("#panel-why .status")).to_contain_text("was not read in 5 s")
    own_broker.start()
    own_broker.wait_ready()
    life.learn(1.0, 2)
    expect(serving).to_have_text("version 2", timeout=30_000)
    expect(notice.first).to_be_hidden()
    expect(tail.locator(".records li")).to_have_count(2)
    why.locator("#why-q").press("Enter")
    expect(why.locator(".rail > li.there")).to_have_count(6)
    visitor.close()
    stage.close()
    log.close()


def skipped(stage: Stage) -> int:
    """Records that tails were too slow for, as the dashboard counts them."""
    with urlopen(f"{stage.url}/metrics") as answer:
        found = re.search(
            r"^tailrace_dashboard_tail_skipped_records_total (\S+)", answer.read().decode(), re.M
        )
    assert found
    return int(float(found[1]))


def whole(text: str) -> int:
    """The number with which a text begins."""
    return int(text.split()[0].replace(",", ""))


def throttle(line: CDPSession, bytes_per_s: int) -> None:
    """-1 is as fast as it goes."""
    speeds = {"downloadThroughput": bytes_per_s, "uploadThroughput": -1, "latency": 0}
    line.send("Network.emulateNetworkConditions", {"offline": False, **speeds})


def test_a_viewer_on_a_slow_line_skips_and_slows_nobody(
    visitor: Visitor, scene: Scene, tmp_path: Path
) -> None:
    stage = Stage(scene.log, tmp_path, tail_records=100, tail_bytes=1 << 24)
    slow = visitor.open("about:blank")
    slows_line = slow.context.new_cdp_session(slow)
    throttle(slows_line, -1)
    slow.goto(stage.url)
    expect(slow.locator("#line")).to_have_text("live")
    throttle(slows_line, 5_000)
    slow.locator("#tab-tail").click()
    quick = visitor.open(f"{stage.url}/#tail/prompts")
    expect(quick.locator(".records li").first).to_be_visible()
    before = skipped(stage)
    for _ in range(ROUNDS):
        for _ in range(AT_ONCE):
            newest = scene.turn(LONG)
        expect(quick.locator(".records")).to_contain_text(newest)
    assert quick.locator(".records .gap").count() == 0
    throttle(slows_line, -1)
    expect(slow.locator(".records")).to_contain_text(newest)
    told = sum(whole(gap) for gap in slow.locator(".records .gap").all_inner_texts())
    assert told == skipped(stage) - before > 0
    expect(slow.locator("#line")).to_have_text("live")
    visitor.close()
    stage.close()


def test_who_hears_nothing_asks_again_and_waits_longer_each_time(
    visitor: Visitor, scene: Scene, tmp_path: Path
) -> None:
    stage = Stage(scene.log, tmp_path, refresh_s=3600.0)
    page = visitor.open("about:blank")
    page.clock.install()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url.rpartition("/")[2]))
    page.goto(stage.url)
    line = page.locator("#line")
    for seconds, times in ((0, 1), (9, 2), (9, 2), (8, 3), (31, 3)):
        page.clock.run_for(seconds * 1000)
        expect(line).to_have_text("live")
        assert asked.count("stream") == times
    visitor.close()
    stage.close()
