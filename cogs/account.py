"""/quota: what a member may still use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import discord
from discord import app_commands

from bot import words

if TYPE_CHECKING:
    from typing import Any

    from bot.client import Client, Services


async def setup(bot: Client) -> None:
    bot.tree.add_command(quota_command(bot.services))


def quota_command(services: Services) -> app_commands.Command[Any, ..., None]:
    @app_commands.command(name="quota", description="What you have used today and what is left (only you see it)")
    @app_commands.guild_only()
    async def quota(interaction: discord.Interaction[Client]) -> None:
        allowances = await services.thumbnails.allowances(interaction.user.id)
        await interaction.response.send_message(words.allowances(allowances), ephemeral=True)

    return quota
