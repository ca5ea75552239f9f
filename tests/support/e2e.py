"""The real bot on real sockets. Discord and Pikzels are stand-ins on loopback; the data is in a temporary folder."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from functools import cache, partial
from io import BytesIO
from typing import TYPE_CHECKING, Any

from discord.gateway import DiscordWebSocket
from discord.http import Route
from PIL import Image
from yarl import URL

from bot import app, config, supervisor
from bot.domain.errors import OutputGone
from sandbox import discord_server, pikzels_server
from sandbox.failpoints import wrapped
from tests.support.factories import requester

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
    from datetime import datetime
    from pathlib import Path

    import pytest

    from bot.domain.models import Job

KEY = "pkz_live_key_of_the_tests"
_PIECE = 16 * 1024  # bytes that the CDN sends at once
PHOTO = discord_server.Upload("photo.png", 200_000, "image/png")


@cache
def png(size: int = 1000) -> bytes:
    """A valid PNG, padded with zeros after its end to at least `size` bytes."""
    out = BytesIO()
    Image.new("RGB", (1280, 720), "navy").save(out, "PNG")
    return out.getvalue().ljust(size, b"\0")


class Cdn:
    """Discord's CDN. It serves what the bot sent. For a member's attachment it serves what `content` says by its file
    name, else an image that it generates from the URL. While `released` is not set, every download waits for it.
    """

    def __init__(self, discord: discord_server.DiscordServer) -> None:
        self._discord = discord
        self.gone = False
        self.content: dict[str, bytes] = {}
        self.released = asyncio.Event()
        self.released.set()
        self.fetched: list[str] = []

    async def fetch(self, address: str, **_: int | None) -> AsyncGenerator[bytes, None]:
        self.fetched.append(address)
        await self.released.wait()
        if self.gone:
            raise OutputGone("status 404")
        if (name := URL(address).name) in self.content:
            for start in range(0, len(self.content[name]), _PIECE):
                yield self.content[name][start : start + _PIECE]
            return
        number = address.split("/")[-2]
        if not number.isdigit():
            raise OutputGone("no attachment")
        files = (file for message in self._discord.messages.values() for file in message.attachments)
        sent = next((file.data for file in files if file.id == int(number)), None)
        yield sent or given(number)


def given(number: str) -> bytes:
    """An image that is unique to this attachment."""
    out = BytesIO()
    Image.new("RGB", (64, 36), f"#{int(number) % 0xFFFFFF:06x}").save(out, "PNG")
    return out.getvalue()


@dataclass(slots=True)
class Live:
    """One running bot with its Discord, its provider and its CDN."""

    discord: discord_server.DiscordServer
    api: pikzels_server.StandIn
    app: app.App
    folder: Path
    cdn: Cdn
    stack: AsyncExitStack

    async def connect(self) -> None:
        """Connect to Discord, and disconnect at the end."""
        connection = asyncio.create_task(self.app.client.start("token"))
        self.stack.push_async_callback(_cancel, connection)
        await self.discord.ready(10)

    async def thumbnail(self, *, user_id: int = 1, **options: Any) -> discord_server.Interaction:
        """Send /thumbnail and return immediately."""
        return await self.discord.slash("thumbnail", options={"image": PHOTO, **options}, user_id=user_id)

    async def made(self, *, user_id: int = 1, **options: Any) -> discord_server.Message:
        """Send /thumbnail and wait for the image."""
        interaction = await self.thumbnail(user_id=user_id, **options)
        await interaction.wait(lambda i: i.message is not None and bool(i.message.attachments), 20)
        assert interaction.message is not None
        return interaction.message

    async def said(self, *, user_id: int = 1, **options: Any) -> discord_server.Message:
        """Send /thumbnail and wait for the failure notice."""
        interaction = await self.thumbnail(user_id=user_id, **options)
        await interaction.wait(lambda i: i.message is not None and "charged" in i.message.content, 20)
        assert interaction.message is not None
        return interaction.message

    async def park(self, **options: Any) -> None:
        """Make an image that cannot be delivered anywhere, so that it waits for /recover."""
        self.discord.fail("PATCH", "*", status=403, code=50001, times=100)
        self.discord.fail("POST", "/channels/*", status=403, code=50001, times=100)
        interaction = await self.thumbnail(**options)
        await interaction.wait(lambda i: i.message is not None, 10)
        await self.app.use_case.recovery.idle(30)
        self.discord.heal()

    async def left(self, user_id: int = 1) -> int:
        somebody = requester(user_id, at=self.app.client.services.clock())
        [allowance] = await self.app.client.services.admission.allowances(somebody)
        return allowance.left

    async def job(self, message: discord_server.Message) -> Job:
        """Wait until the bot is idle and return the job of `message`."""
        await self.app.use_case.recovery.idle(10)
        job = await self.app.storage.ledger.job(message.content.rpartition("#")[2].split()[0])
        assert job is not None
        return job


@asynccontextmanager
async def running(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    output: bytes | None = None,
    around: tuple[discord_server.DiscordServer, pikzels_server.StandIn] | None = None,
    reach: Callable[[str], None] = lambda _: None,
    connect: bool = True,
    clock: Callable[[], datetime] = app.utc_now,
    seconds: Callable[[], float] = time.monotonic,
    **sections: Mapping[str, Any],
) -> AsyncIterator[Live]:
    """Start the bot in this process. `around` holds a Discord and a Pikzels that are already running; without
    `connect` the bot waits for `Live.connect`.
    """
    async with AsyncExitStack() as stack:
        if around is None:
            discord = await stack.enter_async_context(discord_server.serve(keep_files=True))
            served = pikzels_server.serve(api_key=KEY, output=png() if output is None else output)
            api = await stack.enter_async_context(served)
        else:
            discord, api = around
        monkeypatch.setattr(Route, "BASE", discord.rest_url)
        monkeypatch.setattr(DiscordWebSocket, "DEFAULT_GATEWAY", URL(discord.gateway_url))
        settings = config.Settings.model_validate(settings_for(folder, api.base_url, sections))
        cdn = Cdn(discord)
        bot = await stack.enter_async_context(
            app.opened(settings, clock=clock, seconds=seconds, cdn=cdn, wrap=partial(wrapped, reach=reach))
        )
        live = Live(discord, api, bot, folder, cdn, stack)
        if connect:
            await live.connect()
        yield live


@asynccontextmanager
async def sharded(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, shards: int, interval: float = 0.2, **options: Any
) -> AsyncIterator[Live]:
    """As `running`, in a Discord that recommends several connections, with so many seconds between two IDENTIFYs. The
    bot is kept connected as its supervisor does; `prepare` of the options changes Discord before.
    """
    prepare: Callable[[discord_server.DiscordServer], None] = options.pop("prepare", lambda _: None)
    async with (
        discord_server.serve(keep_files=True) as discord,
        pikzels_server.serve(api_key=KEY, output=png()) as api,
        running(folder, monkeypatch, around=(discord, api), connect=False, **options) as live,
    ):
        discord.session_starts.shards = shards
        live.app.client.services.identify_limit.interval = interval
        prepare(discord)
        connection = asyncio.create_task(supervisor._stay_connected(live.app, "token"))
        try:
            yield live
        finally:
            await _cancel(connection)


class Killed(Exception):
    """The program does nothing more from here on."""


def killed_at(wanted: str) -> Callable[[str], None]:
    """For `running`: the program is killed when it reaches the failpoint `wanted`."""

    def reach(point: str) -> None:
        if point == wanted:
            raise Killed

    return reach


def pictures(discord: discord_server.DiscordServer) -> list[discord_server.Message]:
    return [message for message in discord.messages.values() if message.attachments]


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


def settings_for(folder: Path, base_url: str, sections: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    settings: dict[str, dict[str, Any]] = {
        "discord": {"token": "token"},
        "pikzels": {"api_key": KEY, "base_url": base_url, "timeout": 10},
        "storage": {"folder": str(folder)},
        "shutdown": {"grace": 5},
        "budget": {"daily_dollars": 1000, "monthly_dollars": 1000},
    }
    for name, section in sections.items():
        settings[name] = {**settings.get(name, {}), **section}
    return settings


def books(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Read the jobs and the entries from a closed database."""
    with closing(sqlite3.connect(folder / "pikzels-bot.sqlite3")) as connection:
        connection.row_factory = sqlite3.Row
        jobs, entries = (
            [dict(row) for row in connection.execute(f"SELECT * FROM {table} ORDER BY rowid")]
            for table in ("jobs", "entries")
        )
        return jobs, entries
