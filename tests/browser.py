"""A real browser for the pages: Debian's Chromium without a window, driven by Playwright.

A test takes the fixture ``browser``, known everywhere. It lives as long as the test's module: while it does, Playwright
keeps an event loop running in the main thread, so ``asyncio.run`` belongs into other modules.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

DESKTOP, PHONE = (1200, 900), (390, 844)


def chromium_path() -> str | None:
    """Where the machine has its Chromium."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = chromium_path()
    if path is None:
        pytest.skip("there is no Chromium here; `apt-get install chromium` brings it, as .ci/run does")
    with sync_playwright() as playwright:
        # A container has no user namespaces for Chromium's sandbox; the pages are our own.
        launched = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield launched
        launched.close()


@dataclass
class Watched:
    """A page and everything that went wrong or went out while it was open."""

    page: Page
    context: BrowserContext
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    """Console errors (a violated content security policy is one) and uncaught exceptions."""

    @property
    def scrolls_sideways(self) -> bool:
        """Whether the page as a whole is wider than its window."""
        root = "document.documentElement"
        return bool(self.page.evaluate(f"{root}.scrollWidth > {root}.clientWidth"))


@contextmanager
def watched(browser: Browser, size: tuple[int, int] = DESKTOP, scripts: bool = True) -> Iterator[Watched]:
    """A page of its own, with nothing remembered, that is watched."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, java_script_enabled=scripts, accept_downloads=True
    )
    try:
        page = context.new_page()
        seen = Watched(page, context)
        page.on("request", lambda request: seen.requests.append(request.url))
        page.on("pageerror", lambda error: seen.complaints.append(str(error)))
        page.on("console", lambda said: seen.complaints.append(said.text) if said.type == "error" else None)
        yield seen
    finally:
        context.close()
