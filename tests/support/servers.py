"""The simulated servers that a test keeps running while the bot restarts."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

from sandbox import discord_server, pikzels_server
from tests.support.e2e import KEY, png

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Servers(NamedTuple):
    """A simulated Discord and a simulated provider that outlive the bot."""

    discord: discord_server.DiscordServer
    api: pikzels_server.StandIn


@asynccontextmanager
async def simulated_servers() -> AsyncIterator[Servers]:
    async with discord_server.serve(keep_files=True) as discord, pikzels_server.serve(api_key=KEY, output=png()) as api:
        yield Servers(discord, api)
