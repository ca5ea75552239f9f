"""Takes the pictures of the documents from the page of the demo: `python -m sandbox.screenshots`."""

from __future__ import annotations

import asyncio
import io
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from bot.cli import exit_codes
from sandbox import browser, demo, page, simulated
from sandbox.pikzels_server.replies import Reply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import simcord

PICTURES = ("result", "history", "quota", "progress", "operator")
FOLDER = Path(__file__).parents[1] / "docs" / "images"
_WIDTH, _HEIGHT = 720, 1600  # of the page, in CSS pixels; high enough for everything that is in a picture
_SCALE = 2.0  # pixels of a picture per CSS pixel
_MARGIN = 6.0  # CSS pixels
_QUALITY = 80  # of WebP, which keeps letters and photographs small
_REQUESTS = (  # what /history shows; the last one is the picture of a result
    {"model": "pkz_3", "format": "1:1", "prompt": "Ten things only cats know"},
    {"model": "pkz_4", "prompt": "I let my cat run the channel"},
    {"prompt": demo.FIRST_PROMPT},
)

# Scripts for the page. {count} is how many messages are in the picture.
_SHOWN = """(() => {{
    const messages = [...document.querySelectorAll('article.channel-message')].slice(-{count});
    const all = (selector) => messages.flatMap((message) => [...message.querySelectorAll(selector)]);
    const buttons = all('.component-button');
    return messages.length === {count}
        && document.querySelector('#preview-app').getAttribute('aria-busy') === 'false'
        && all('img').every((image) => image.complete && image.naturalWidth)
        && (!buttons.length || buttons.some((button) => button.getAttribute('aria-disabled') === 'false'));
}})()"""
# The page's own tools are in no picture.
_TOOLS = ".messages-sidebar, .message-context-actions, .attachment-media-actions, .channel-composer"
_HIDE = f"document.querySelectorAll('{_TOOLS}').forEach((tool) => {{ tool.style.display = 'none'; }})"
_PLACE = """(() => {{
    const last = [...document.querySelectorAll('article.channel-message')].slice(-{count});
    const places = last.map((message) => message.getBoundingClientRect());
    return {{left: places[0].left, right: places[0].right, top: places[0].top, bottom: places.at(-1).bottom}};
}})()"""


async def taken(program: str) -> AsyncIterator[tuple[str, bytes]]:
    """Each of `PICTURES` with its name, as a PNG."""
    with tempfile.TemporaryDirectory(prefix="pikzels-bot-screenshots-") as folder:
        async with (
            simulated.opened(Path(folder), sections=demo.PAGE_SETTINGS, is_live=True, check_errors=False) as server,
            browser.opened(program) as tab,
        ):
            operator = await server.operator("operator")
            you, friend = server.member("you"), server.member("friend")

            async def shot(viewer: simcord.MemberActor, *, messages: int = 1) -> bytes:
                async with page.opened(server, viewers=[viewer], port=None) as opened:
                    return await picture(tab, opened.address, messages=messages)

            for options in _REQUESTS:
                await _request(server, you, **options)
                await server.app.use_case.recovery.idle(simulated.SETTLE_SECONDS)
            yield "result", await shot(you)
            await you.slash(server.channel, "history")
            yield "history", await shot(you)
            await you.slash(server.channel, "quota")
            yield "quota", await shot(you)
            server.api.always(Reply(held=True))
            for member in (friend, you):
                await _request(server, member, prompt="Wait for it")
            yield "progress", await shot(you, messages=2)
            await server.app.back_up()
            await operator.slash(server.channel, "operator status")
            yield "operator", await shot(operator)
            server.api.always(Reply())
            server.api.release()


async def _request(server: simulated.SimulatedServer, member: simcord.MemberActor, **options: str) -> None:
    image = (demo.PHOTO.name, demo.PHOTO.read_bytes())
    await member.slash(server.channel, "thumbnail", image=image, **options)


async def picture(tab: browser.Tab, address: str, *, messages: int) -> bytes:
    """A PNG of the last `messages` of the page at `address`."""
    await tab.open(address, width=_WIDTH, height=_HEIGHT, scale=_SCALE)
    await tab.until(_SHOWN.format(count=messages))
    await tab.evaluate(_HIDE)
    place = await tab.evaluate(_PLACE.format(count=messages))
    width, height = place["right"] - place["left"], place["bottom"] - place["top"]
    return await tab.screenshot(
        left=place["left"], top=place["top"] - _MARGIN, width=width, height=height + 2 * _MARGIN
    )


def small(png: bytes) -> bytes:
    """The same picture as a WebP."""
    target = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        image.convert("RGB").save(target, "WEBP", quality=_QUALITY, method=6)
    return target.getvalue()


async def _take_all(program: str) -> None:
    FOLDER.mkdir(exist_ok=True)
    async for name, png in taken(program):
        target = FOLDER / f"{name}.webp"
        target.write_bytes(small(png))
        print(f"{target.relative_to(FOLDER.parents[1])}: {target.stat().st_size // 1000} kB")


def main() -> int:
    program = browser.executable()
    if program is None:
        print(f"The pictures need one of these programs: {', '.join(browser.NAMES)}.", file=sys.stderr)
        return exit_codes.FAILED
    asyncio.run(_take_all(program))
    return exit_codes.OK


if __name__ == "__main__":
    raise SystemExit(main())
