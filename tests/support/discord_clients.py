"""discord.py clients for the simulated Discord."""

from __future__ import annotations

import asyncio
import io
import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import discord
from yarl import URL

from bot.discord_io import gateway_state
from sandbox import discord_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest

    from bot.domain.health import Connection

PNG = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", 640, 360, 8, 2, 0, 0, 0) + bytes(300_000)

Client = TypeVar("Client", bound=discord.Client)


@asynccontextmanager
async def simulated_discord(
    monkeypatch: pytest.MonkeyPatch, **options: Any
) -> AsyncIterator[discord_server.DiscordServer]:
    """Run a simulated Discord, and point discord.py at it; `options` are those of `discord_server.serve`."""
    monkeypatch.setattr(discord.VoiceClient, "warn_nacl", False)
    monkeypatch.setattr(discord.VoiceClient, "warn_dave", False)
    async with discord_server.serve(**options) as server:
        monkeypatch.setattr(discord.http.Route, "BASE", server.rest_url)
        monkeypatch.setattr(discord.gateway.DiscordWebSocket, "DEFAULT_GATEWAY", URL(server.gateway_url))
        yield server


@asynccontextmanager
async def running(
    server: discord_server.DiscordServer,
    bot: Client,
    *,
    token: str = "any",  # noqa: S107 - the server accepts any token by default
) -> AsyncIterator[Client]:
    """Run the bot until it is ready, and close it at the end."""
    task = asyncio.create_task(bot.start(token))
    try:
        await server.ready()
        await bot.wait_until_ready()
        yield bot
    finally:
        await bot.close()
        await task
        await server.gone()


async def becomes(client: discord.Client, connection: Connection) -> None:
    """Wait until the client is connected in this way."""
    async with asyncio.timeout(10):
        while gateway_state.read(client).connection is not connection:  # noqa: ASYNC110 - nothing announces a silence
            await asyncio.sleep(0.01)


def channel(bot: discord.Client) -> discord.PartialMessageable:
    return bot.get_partial_messageable(discord_server.CHANNEL_ID, guild_id=discord_server.GUILD_ID)


def png(name: str) -> discord.File:
    return discord.File(io.BytesIO(PNG), name, description="alt text")
