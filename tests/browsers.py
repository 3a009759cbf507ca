"""A real Chromium for the tests of the console, and what they ask of a page."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import BrowserContext, Page, async_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# What the server refuses on purpose in a test is said by Chromium in its console too.
_REFUSED = "Failed to load resource"


@dataclass
class Opened:
    """A page that is open, what it has asked for, and what has gone wrong in it."""

    page: Page
    asked: list[str]
    wrong: list[str]

    async def value(self, selector: str) -> str:
        """The exact value of the number there."""
        return str(await self.page.locator(selector).get_attribute("value"))

    async def number(self, selector: str) -> float:
        return float(await self.value(selector))

    async def text(self, selector: str) -> str:
        """What people read there, with plain spaces."""
        return (await self.page.locator(selector).inner_text()).replace("\xa0", " ")

    async def until(self, selector: str, value: object) -> None:
        """Returns once the number there has this value."""
        await self.page.wait_for_selector(f'{selector}[value="{value}"]')

    async def breaches(self) -> list[str]:
        """What axe finds wrong with the page as it is."""
        found = (await Axe().run(self.page)).response["violations"]
        return [
            f"{each['id']}: {node['target']} {node['failureSummary']}" for each in found for node in each["nodes"]
        ]


@asynccontextmanager
async def browsing(port: int, path: str = "/", **context: Any) -> AsyncIterator[Opened]:
    """The console in a browser; at the end nothing may have gone wrong, and nobody else been asked."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            opened = await _open(await browser.new_context(**context))
            origin = f"http://127.0.0.1:{port}"
            await opened.page.goto(origin + path)
            yield opened
            assert {each for each in opened.asked if not each.startswith(origin + "/")} == set()
            assert opened.wrong == []
        finally:
            await browser.close()


async def _open(context: BrowserContext) -> Opened:
    page = await context.new_page()
    opened = Opened(page, [], [])
    page.on("request", lambda request: opened.asked.append(request.url))
    page.on("pageerror", lambda error: opened.wrong.append(str(error)))
    page.on(
        "console",
        lambda said: (
            said.type in {"error", "warning"} and _REFUSED not in said.text and opened.wrong.append(said.text)
        ),
    )
    return opened
