"""The pictures of README and docs/dashboard.md: ``python -m tests.browser.pictures``.

Starts ``tailrace demo`` (or looks at a page that is already there, ``--url``), talks with its
model, waits until people have taught it something, and leaves ``docs/dashboard-*.png``. Further
options are the demo's (``--minutes``, ``--rate``). Needs chromium.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib

from playwright.sync_api import Locator, Page, expect, sync_playwright

from tests.rewards.worker import CHECKOUT

DOCS = CHECKOUT / "docs"
START_S = 300.0
DRAIN_S = 240.0
ANSWER_S = 120.0


@contextmanager
def demo(options: list[str]) -> Iterator[str]:
    """The page of a demo that runs, at most eight minutes if the options do not say how long."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder) / "state" / "settings.toml"
        command = [sys.executable, "-m", "tailrace.cli", "demo", "--minutes", "8", *options]
        command += ["--state-dir", str(settings.parent), "--json"]
        with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.DEVNULL) as running:
            try:
                yield _address(settings, running)
            finally:
                running.terminate()
                running.wait(DRAIN_S)


def _address(settings: Path, running: subprocess.Popen[bytes]) -> str:
    until = time.monotonic() + START_S
    while time.monotonic() < until and running.poll() is None:
        if settings.exists():
            port = tomllib.loads(settings.read_text()).get("dashboard", {}).get("port")
            if port:
                return f"http://127.0.0.1:{port}"
        time.sleep(0.5)
    raise RuntimeError("the demo has no dashboard")


def _opened(page: Page, url: str) -> None:
    """Once the page answers, and an engine serves."""
    until = time.monotonic() + START_S
    while True:
        try:
            page.goto(url)
            break
        except Exception:
            if time.monotonic() > until:
                raise
            time.sleep(1.0)
    serving = page.locator(".lamp[data-name='serving'] .more")
    expect(serving).to_contain_text("on ", timeout=START_S * 1000)


def _versions(page: Page, many: int) -> None:
    """Once so many were made from the first."""
    page.wait_for_function(
        "(many) => document.querySelectorAll('.versions tbody tr').length > many",
        arg=many,
        timeout=600_000,
    )


def ask(page: Page, question: str) -> Locator:
    """Its answer, once it is whole."""
    page.locator("#question").fill(question)
    page.locator("#question").press("Enter")
    answer = page.locator(".turn.answer").last
    expect(answer).to_have_attribute("aria-busy", "false", timeout=ANSWER_S * 1000)
    return answer


def talk(page: Page, url: str) -> Locator:
    """Ask, and like what was answered: the first answer."""
    page.goto(f"{url}/#talk")
    page.locator(".terms summary").click()
    page.get_by_label("most tokens").fill("40")
    page.locator(".terms summary").click()
    for question in ("Why is the sky blue?", "What is a tailrace?"):
        ask(page, question).get_by_role("button", name="Good").click()
    return page.locator(".turn.answer").first


def take(url: str, folder: Path, enough: int) -> list[Path]:
    """All pictures of a running system, once it trained so many versions."""
    made: list[Path] = []

    def keep(page: Page, name: str, *, whole: bool = False) -> None:
        made.append(folder / f"dashboard-{name}.png")
        page.screenshot(path=made[-1], full_page=whole)

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        desk = browser.new_page(viewport={"width": 1280, "height": 1100})
        desk.set_default_timeout(30_000)
        _opened(desk, url)
        answer = talk(desk, url)
        _versions(desk, enough)
        desk.goto(f"{url}/#now")
        expect(desk.locator(".versions .plot rect").first).to_be_visible()
        keep(desk, "now")
        phone = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
        phone.goto(url)
        expect(phone.locator(".people .plot path").first).to_be_visible()
        keep(phone, "phone")
        desk.goto(f"{url}/#talk")
        expect(answer.locator(".stations")).to_contain_text("serving since", timeout=START_S * 1000)
        ask(desk, "Why is the sky blue?")
        keep(desk, "talk")
        interaction = answer.get_attribute("data-interaction")
        desk.goto(f"{url}/#why/interaction/{interaction}")
        expect(desk.locator(".rail > li.there")).to_have_count(6, timeout=60_000)
        keep(desk, "why", whole=True)
        browser.close()
    return made


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description="Pictures of the dashboard.")
    parser.add_argument("--url", help="a dashboard that runs; else a demo is started")
    parser.add_argument("--versions", type=int, default=8, help="to wait for (8; at least 2)")
    parser.add_argument("--out", type=Path, default=DOCS)
    given, options = parser.parse_known_args()
    if given.url:
        made = take(given.url.rstrip("/"), given.out, given.versions)
    else:
        with demo(options) as url:
            made = take(url, given.out, given.versions)
    print("\n".join(str(path) for path in made))
    return 0


if __name__ == "__main__":
    sys.exit(main())
