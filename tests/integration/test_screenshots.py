"""The pictures in the documents, and what takes them; the latter where Chromium is installed."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from PIL import Image

from sandbox import browser, page, screenshots, simulated

ROOT = Path(__file__).parents[2]
PROGRAM = browser.executable()
with_a_browser = pytest.mark.skipif(PROGRAM is None, reason="neither Chromium nor Chrome is installed")
LARGEST = 300_000  # bytes


def test_the_documents_show_every_picture_that_is_taken() -> None:
    pages = (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))
    shown = {name for path in pages for name in re.findall(r"images/(\w+)\.webp\)", path.read_text("utf-8"))}
    kept = {path.stem for path in screenshots.FOLDER.glob("*.webp")}
    assert shown == kept == {*screenshots.PICTURES}


@pytest.mark.parametrize("name", screenshots.PICTURES)
def test_the_pictures_are_small(name: str) -> None:
    assert (screenshots.FOLDER / f"{name}.webp").stat().st_size < LARGEST


def test_a_picture_is_stored_with_all_its_pixels() -> None:
    png = io.BytesIO()
    Image.effect_noise((64, 32), 50).save(png, "PNG")
    with Image.open(io.BytesIO(screenshots.small(png.getvalue()))) as stored:
        assert (stored.format, stored.size) == ("WEBP", (64, 32))


@with_a_browser
async def test_a_picture_shows_the_last_message_of_the_page(tmp_path: Path) -> None:
    assert PROGRAM is not None
    async with simulated.opened(tmp_path, is_live=True) as server, browser.opened(PROGRAM) as tab:
        you = server.member("you")
        await you.slash(server.channel, "quota")
        async with page.opened(server, viewers=[you], port=None) as opened:
            png = await screenshots.picture(tab, opened.address, messages=1)
            assert "credits used" in await tab.evaluate("document.querySelector('article.channel-message').textContent")
        with Image.open(io.BytesIO(png)) as image:
            assert image.width > 3 * image.height > 300, "one short message, as wide as the page"
            assert len(image.convert("RGB").getcolors(maxcolors=1 << 24) or []) > 50, "there is something on it"
        with pytest.raises(RuntimeError, match="is not defined"):
            await tab.evaluate("nothing.at.all")
        with pytest.raises(TimeoutError):
            await tab.until("false", seconds=0.1)


@with_a_browser
async def test_the_browser_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert PROGRAM is not None
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    async with browser.opened(PROGRAM) as tab:
        assert await tab.evaluate("1 + 1") == 2
        assert list(tmp_path.iterdir())
    assert list(tmp_path.iterdir()) == []
