"""A headless Chromium that this machine already has, driven over its DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
import re
import shutil
import tempfile
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import aiohttp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_START_SECONDS = 30.0
_LARGEST_ANSWER = 64 * 1024 * 1024  # a screenshot in base64
# What has just changed is drawn in the next frame; on a busy machine that takes a while.
_TWO_FRAMES = "new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))"


def executable() -> str | None:
    """The first of `NAMES` that is installed."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Tab:
    """One page of the browser."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, session: str) -> None:
        self._socket = socket
        self._session = session
        self._numbers = itertools.count(1)

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol; raises `RuntimeError` if Chromium refuses it."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters, "sessionId": self._session}
        await self._socket.send_json(message)
        while True:  # what is not the answer is an event, and nobody listens to these
            answer = await self._socket.receive_json()
            if answer.get("id") == number:
                break
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    async def open(self, address: str, *, width: int, height: int, scale: float) -> None:
        """`width` and `height` are in CSS pixels, of which each is `scale` pixels wide and high on a screenshot."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=False
        )
        await self.call("Page.navigate", url=address)

    async def evaluate(self, script: str) -> Any:
        """The value of an expression; a promise is awaited. Raises `RuntimeError` if it throws."""
        answer = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"].get("exception", {}).get("description", script)))
        return answer["result"].get("value")

    async def until(self, condition: str, *, seconds: float = 15.0) -> None:
        """Wait until an expression is true; raises `TimeoutError`."""
        async with asyncio.timeout(seconds):
            while not await self.evaluate(f"Boolean({condition})"):  # noqa: ASYNC110 - a page has no event for it
                await asyncio.sleep(0.05)

    async def screenshot(self, *, left: float, top: float, width: float, height: float) -> bytes:
        """A PNG of a part of what the page shows, in CSS pixels from its upper left corner."""
        await self.evaluate(_TWO_FRAMES)
        clip = {"x": left, "y": top, "width": width, "height": height, "scale": 1}
        shot = await self.call("Page.captureScreenshot", format="png", clip=clip)
        return base64.b64decode(shot["data"])


@asynccontextmanager
async def opened(program: str) -> AsyncIterator[Tab]:
    """Start the browser with a profile of its own, which is deleted at the end."""
    with tempfile.TemporaryDirectory(prefix="pikzels-bot-browser-", ignore_cleanup_errors=True) as profile:
        # Chromium refuses to run as root with its sandbox, as in a container. It sees only pages of this machine.
        as_root = ("--no-sandbox",) if hasattr(os, "geteuid") and os.geteuid() == 0 else ()
        child = await asyncio.create_subprocess_exec(
            program,
            "--headless=new",
            "--remote-debugging-port=0",
            f"--user-data-dir={profile}",
            "--disable-gpu",
            "--hide-scrollbars",
            "--no-first-run",
            *as_root,
            "about:blank",
            stderr=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
        )
        try:
            address = await asyncio.wait_for(_address(child), _START_SECONDS)
            async with (
                aiohttp.ClientSession() as http,
                http.ws_connect(address, max_msg_size=_LARGEST_ANSWER) as socket,
            ):
                yield await _new_tab(socket)
        finally:
            with suppress(ProcessLookupError):
                child.terminate()
            await child.communicate()


async def _address(child: asyncio.subprocess.Process) -> str:
    assert child.stderr is not None
    async for line in child.stderr:
        if found := re.match(r"DevTools listening on (ws://\S+)", line.decode(errors="replace")):
            return found[1]
    raise RuntimeError("the browser has ended")


async def _new_tab(socket: aiohttp.ClientWebSocketResponse) -> Tab:
    async def ask(number: int, method: str, **parameters: Any) -> Any:
        await socket.send_json({"id": number, "method": method, "params": parameters})
        while (answer := await socket.receive_json()).get("id") != number:
            pass
        return answer["result"]

    target = (await ask(-1, "Target.createTarget", url="about:blank"))["targetId"]
    return Tab(socket, (await ask(-2, "Target.attachToTarget", targetId=target, flatten=True))["sessionId"])
