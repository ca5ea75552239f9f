"""/quota and /recover: what a member may still use, and which images are kept for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import discord
from discord import app_commands

from bot.discord_io import buttons
from bot.text import refusals, results
from cogs import interactions

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
        allowances = await services.lifecycle.allowances(interaction.user.id)
        text = refusals.allowances(allowances, locale=interactions.locale(interaction))
        await interaction.response.send_message(text, ephemeral=True)

    return quota


def recover_command(services: Services) -> app_commands.Command[Any, ..., None]:
    @app_commands.command(name="recover", description="Get your finished images that could not be delivered")
    @app_commands.guild_only()
    async def recover(interaction: discord.Interaction[Client]) -> None:
        await interaction.response.defer(ephemeral=True)

        async def hand_over(job: Job, picture: Picture) -> int:
            file = await services.attachment(job, picture, interactions.upload_limit(interaction))
            view = buttons.view(job, buttons.OF_PRIVATE_RESULT)
            message = await interaction.followup.send(
                results.result(job), file=file, view=view, ephemeral=True, wait=True
            )
            return message.id

        if not await services.outcomes.claim(interaction.user.id, hand_over):
            await interaction.followup.send(
                results.nothing_to_recover(locale=interactions.locale(interaction)), ephemeral=True
            )

    return recover
