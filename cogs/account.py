"""/quota and /recover: what a member may still use, and what is kept for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import discord
from discord import app_commands

from bot.discord_io import buttons
from bot.text import words
from cogs.interactions import UPLOAD_LIMIT

if TYPE_CHECKING:
    from typing import Any

    from bot.discord_io.client import Client, Services
    from bot.domain.models import Job, Picture


async def setup(bot: Client) -> None:
    bot.tree.add_command(quota_command(bot.services))
    bot.tree.add_command(recover_command(bot.services))


def quota_command(services: Services) -> app_commands.Command[Any, ..., None]:
    @app_commands.command(name="quota", description="What you have used today and what is left (only you see it)")
    @app_commands.guild_only()
    async def quota(interaction: discord.Interaction[Client]) -> None:
        allowances = await services.thumbnails.allowances(interaction.user.id)
        await interaction.response.send_message(words.allowances(allowances), ephemeral=True)

    return quota


def recover_command(services: Services) -> app_commands.Command[Any, ..., None]:
    @app_commands.command(name="recover", description="Get pictures that were made for you and could not be delivered")
    @app_commands.guild_only()
    async def recover(interaction: discord.Interaction[Client]) -> None:
        await interaction.response.defer(ephemeral=True)

        async def hand_over(job: Job, picture: Picture) -> int:
            file = await services.attachment(job, picture, interaction.filesize_limit or UPLOAD_LIMIT)
            view = buttons.view(job, buttons.OF_PRIVATE_RESULT)
            message = await interaction.followup.send(
                words.result(job), file=file, view=view, ephemeral=True, wait=True
            )
            return message.id

        if not await services.thumbnails.claim(interaction.user.id, hand_over):
            await interaction.followup.send(words.NOTHING_KEPT, ephemeral=True)

    return recover
