"""What the bot is compared with: a minimal discord.py handler that makes the same calls without a ledger.

It has no database, queue, limits or retries, keeps no source images, and holds every image in memory between the two
transfers. Its one session keeps its connections.
`SANDBOX_DISCORD_REST` and `SANDBOX_DISCORD_GATEWAY` hold the addresses of the simulated Discord, and `BARE_API` holds
the address of the image service.
"""

from __future__ import annotations

import asyncio
import os
from io import BytesIO
from typing import Any

import aiohttp
import discord
import discord.gateway
import discord.http
import uvloop
from discord import app_commands
from discord.ext import commands
from yarl import URL


class BareBot(commands.Bot):
    """A bot as simple as the examples in the discord.py documentation."""

    def __init__(self, api: str) -> None:
        super().__init__(command_prefix=commands.when_mentioned, help_command=None, intents=discord.Intents.none())
        self._url = f"{api}/v2/thumbnail/image"
        self._session = aiohttp.ClientSession()

    async def setup_hook(self) -> None:
        self.tree.add_command(self._command())
        await self.tree.sync()

    async def close(self) -> None:
        await self._session.close()
        await super().close()

    def _command(self) -> app_commands.Command[Any, ..., None]:
        @app_commands.command(name="thumbnail", description="Make a thumbnail")
        async def thumbnail(interaction: discord.Interaction[BareBot], image: discord.Attachment, prompt: str) -> None:
            await interaction.response.send_message("Generating")
            result = await self._generate(image.url, prompt)
            file = discord.File(BytesIO(result), "thumbnail.png", description=prompt)
            await interaction.edit_original_response(content="Done", attachments=[file])

        return thumbnail

    async def _generate(self, image: str, prompt: str) -> bytes:
        body = {"model": "pkz_4_5", "format": "16:9", "image_url": image, "prompt": prompt}
        async with self._session.post(self._url, json=body, headers={"X-Api-Key": "pkz_sandbox"}) as response:
            output = (await response.json())["output"]
        async with self._session.get(output) as response:
            return await response.read()


async def _run() -> None:
    discord.http.Route.BASE = os.environ["SANDBOX_DISCORD_REST"]
    discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY = URL(os.environ["SANDBOX_DISCORD_GATEWAY"])
    async with BareBot(os.environ["BARE_API"]) as bot:
        await bot.start("tok.en")


if __name__ == "__main__":
    # By default it runs on the standard event loop. BARE_LOOP=uvloop shows how much of the difference is the loop.
    factory = uvloop.new_event_loop if os.environ.get("BARE_LOOP") == "uvloop" else None
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_run())
