"""The pictures of README, from a real run: ``python -m tests.browser.pictures [--minutes M]``.

Starts ``tailrace demo`` (or looks at a page that is already there, ``--url``), waits until people
have taught it something, and leaves ``docs/dashboard-*.png``. Needs chromium.
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

from playwright.sync_api import Page, expect, sync_playwright

from tests.rewards.worker import CHECKOUT

DOCS = CHECKOUT / "docs"
START_S = 300.0
DRAIN_S = 240.0
ENOUGH = 8
"""Versions by which there is something to see."""


@contextmanager
def demo(minutes: float) -> Iterator[str]:
    """The page of a demo that runs."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder) / "state" / "settings.toml"
        command = [sys.executable, "-m", "tailrace.cli", "demo", "--minutes", str(minutes)]
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
    """Once the page answers, and enough versions are there."""
    until = time.monotonic() + START_S
    while True:
        try:
            page.goto(url)
            break
        except Exception:
            if time.monotonic() > until:
                raise
            time.sleep(1.0)
    page.wait_for_function(
        "(enough) => document.querySelectorAll('.versions tbody tr').length >= enough",
        arg=ENOUGH,
        timeout=600_000,
    )


def talk(page: Page, url: str) -> str:
    """Ask, like, and see it joined: the interaction."""
    page.goto(f"{url}/#talk")
    answer = page.locator(".turn.answer")
    for number, question in enumerate(("Why is the sky blue?", "What is a tailrace?")):
        page.locator("#question").fill(question)
        page.locator("#question").press("Enter")
        expect(answer.nth(number)).to_have_attribute("aria-busy", "false", timeout=60_000)
        answer.nth(number).get_by_role("button", name="Good").click()
    first = answer.first.locator(".stations")
    expect(first).to_contain_text("serving since", timeout=180_000)
    page.locator("#question").fill("Why is the sky blue?")
    page.locator("#question").press("Enter")
    expect(answer.nth(2)).to_have_attribute("aria-busy", "false", timeout=60_000)
    return str(answer.first.get_attribute("data-interaction"))


def take(url: str, folder: Path) -> list[Path]:
    """All pictures of a running system."""
    made: list[Path] = []

    def keep(page: Page, name: str, *, whole: bool = False) -> None:
        made.append(folder / f"dashboard-{name}.png")
        page.screenshot(path=made[-1], full_page=whole)

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        desk = browser.new_page(viewport={"width": 1440, "height": 1240})
        desk.set_default_timeout(30_000)
        _opened(desk, url)
        interaction = talk(desk, url)
        keep(desk, "talk")
        desk.goto(f"{url}/#why/interaction/{interaction}")
        expect(desk.locator(".rail > li.there")).to_have_count(6, timeout=60_000)
        keep(desk, "why", whole=True)
        desk.goto(f"{url}/#now")
        expect(desk.locator(".versions .plot rect").first).to_be_visible()
        keep(desk, "now")
        phone = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
        phone.goto(url)
        expect(phone.locator(".people .plot path").first).to_be_visible()
        keep(phone, "phone")
        browser.close()
    return made


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description="Pictures of the dashboard.")
    parser.add_argument("--url", help="a dashboard that runs; else a demo is started")
    parser.add_argument("--minutes", type=float, default=8.0, help="of the demo (8)")
    parser.add_argument("--out", type=Path, default=DOCS)
    given = parser.parse_args()
    if given.url:
        made = take(given.url.rstrip("/"), given.out)
    else:
        with demo(given.minutes) as url:
            made = take(url, given.out)
    print("\n".join(str(path) for path in made))
    return 0


if __name__ == "__main__":
    sys.exit(main())
