"""A browser without a window, pages that must not complain, and a dashboard over a told past.

Debian's chromium is driven; nothing is downloaded. A page fails its test by whatever it says on the
console, by an exception, and by any request to another host than loopback.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
import shutil
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
import pytest
import tokenizers

from tests.browser.scene import Scene
from tests.browser.stage import Stage


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One browser for the run."""
    program = shutil.which("chromium")
    assert program, "apt-get install chromium"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


expect.set_options(timeout=15_000)


class Visitor:
    """Opens pages and hears what they say."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._contexts: list[BrowserContext] = []
        self.said: list[str] = []
        self.expected: tuple[str, ...] = ()
        """Parts of what a test means to provoke: a server that goes away is on the console."""

    def open(self, url: str, *, width: int = 1280, height: int = 900, **context: Any) -> Page:
        """A page in a context of its own."""
        made = self._browser.new_context(
            viewport={"width": width, "height": height},
            permissions=["clipboard-read", "clipboard-write"],
            **context,
        )
        self._contexts.append(made)
        page = made.new_page()
        page.set_default_timeout(15_000)
        page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.said.append(f"exception: {error}"))
        page.on("request", lambda request: self._asked(request.url))
        page.goto(url)
        return page

    def _asked(self, url: str) -> None:
        if not url.startswith(("http://127.0.0.1:", "data:", "blob:")):
            self.said.append(f"another host: {url}")

    def complaints(self) -> list[str]:
        """What nobody expected."""
        return [line for line in self.said if not any(part in line for part in self.expected)]

    def close(self) -> None:
        for context in self._contexts:
            context.close()


@pytest.fixture
def visitor(browser: Browser) -> Iterator[Visitor]:
    made = Visitor(browser)
    yield made
    made.close()
    assert not made.complaints()


@pytest.fixture(scope="module")
def scene(tiny_model: Path) -> Scene:
    """A past of 14 versions; tests of a module write on."""
    tokenizer = tokenizers.Tokenizer.from_file(str(tiny_model / "tokenizer.json"))
    made = Scene(lambda text: list(tokenizer.encode(text).ids))
    made.past()
    return made


@pytest.fixture(scope="module")
def stage(
    scene: Scene, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """A dashboard over it."""
    made = Stage(scene.log, tmp_path_factory.mktemp("dashboard"), model_dir=tiny_model)
    yield made
    made.close()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Where a test leaves its screenshots."""
    return tmp_path
