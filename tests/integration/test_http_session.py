"""The HTTP clients take nothing from the environment: neither a proxy nor a password."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from bot import __version__
from bot.images.downloads import ImageDownloader, fetch_whole
from bot.pikzels.client import Pikzels
from tests.support.factories import API_KEY, image_bytes, request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import pytest

    from sandbox.pikzels_server.server import StandIn


@asynccontextmanager
async def proxy() -> AsyncIterator[tuple[str, list[bytes]]]:
    """Yields the address of a proxy that answers nothing, and what it was asked for."""
    asked: list[bytes] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.close()

    async with await asyncio.start_server(connected, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked


async def test_no_proxy_of_the_environment_sees_a_call_or_a_download(
    api: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with proxy() as (address, asked):
        for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
            for spelled in (name, name.upper()):
                monkeypatch.setenv(spelled, "" if name == "no_proxy" else address)
        async with Pikzels(api_key=API_KEY, base_url=api.base_url, timeout=5) as pikzels:
            output = await pikzels.create(request())
        async with ImageDownloader(loopback=True, timeout=5) as downloads:
            assert await fetch_whole(downloads, output.url) == image_bytes()
    assert asked == []


async def test_the_version_is_sent_and_no_password_of_the_environment(
    api: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "netrc"
    file.write_text("machine 127.0.0.1 login me password secret\n")
    file.chmod(0o600)
    monkeypatch.setenv("NETRC", str(file))
    async with Pikzels(api_key=API_KEY, base_url=api.base_url, timeout=5) as pikzels:
        output = await pikzels.create(request())
    async with ImageDownloader(loopback=True, timeout=5) as downloads:
        await fetch_whole(downloads, output.url)
    assert {call.headers["User-Agent"] for call in (*api.calls, *api.downloads)} == {f"pikzels-bot/{__version__}"}
    assert all("Authorization" not in call.headers for call in (*api.calls, *api.downloads))
