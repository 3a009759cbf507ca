"""Takes the pictures: the overview in light, dark and on a phone, and the candidates."""

from __future__ import annotations

import shutil
from io import BytesIO
from pathlib import Path

import click
from PIL import Image
from playwright.async_api import Browser, async_playwright

_SIZES = {
    "console-light": ("light", 1280, 900, "overview"),
    "console-dark": ("dark", 1280, 900, "overview"),
    "console-phone": ("light", 390, 1500, "overview"),
    "console-candidates": ("light", 1280, 900, "league"),
}
_MORE = {
    "candidates-dark": ("dark", 1280, 900, "league"),
    "models-dark": ("dark", 1280, 900, "models"),
    "decision-light": ("light", 1280, 900, "decision"),
    "decision-phone": ("dark", 390, 844, "decision"),
    "candidates-phone": ("light", 390, 844, "league"),
}


async def take(port: int, decision_id: str, folder: Path, *, every: bool) -> list[Path]:
    """Writes the pictures into the folder, those of the other views too with `every`; gives their paths."""
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None:
        raise click.ClickException("there is no Chromium: apt-get install chromium")
    folder.mkdir(parents=True, exist_ok=True)
    sizes = _SIZES | _MORE if every else _SIZES
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        try:
            return [
                await _picture(browser, f"http://127.0.0.1:{port}", decision_id, folder / f"{name}.png", *size)
                for name, size in sizes.items()
            ]
        finally:
            await browser.close()


async def _picture(
    browser: Browser, origin: str, decision_id: str, path: Path, scheme: str, width: int, height: int, view: str
) -> Path:
    context = await browser.new_context(
        color_scheme="dark" if scheme == "dark" else "light", viewport={"width": width, "height": height}
    )
    page = await context.new_page()
    address = f"{origin}/#/support/{view}" + (f"/{decision_id}" if view == "decision" else "")
    await page.goto(address)
    await page.wait_for_selector(
        {"overview": ".chart canvas", "decision": "#decision-model"}.get(view, "tbody tr")
    )
    if view == "overview":
        await page.click("[data-range='7 d']")
        await page.wait_for_selector("[data-range='7 d'][aria-pressed=true]")
    await page.wait_for_timeout(300)
    taken = await page.screenshot(full_page=width > height)
    await context.close()
    # A page has few colours: so it takes a third of the bytes.
    Image.open(BytesIO(taken)).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    return path
