"""/quota and /recover: what a member may still use, and which images are kept for them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import discord
from discord import app_commands

from bot.domain.errors import JobFailed
from bot.domain.models import Claim
from bot.text import limits, operator, results
from cogs import interactions, responses

if TYPE_CHECKING:
    from typing import Any

    from bot.discord_io.client import Client, Services

log = logging.getLogger(__name__)


async def setup(bot: Client) -> None:
    bot.tree.add_command(quota_command(bot.services))
    bot.tree.add_command(recover_command(bot.services))


def quota_command(services: Services) -> app_commands.Command[Any, ..., None]:
    @app_commands.command(name="quota", description="What you have used today and what is left (only you see it)")
    @app_commands.guild_only()
    async def quota(interaction: discord.Interaction[Client]) -> None:
        with services.recovery.waited_for():
            allowances = await services.admission.allowances(interactions.requester(interaction))
            text = limits.allowances(allowances, locale=interactions.locale(interaction))
            await responses.respond(interaction, text, ephemeral=True)

    return quota


def recover_command(services: Services) -> app_commands.Command[Any, ..., None]:
    @app_commands.command(name="recover", description="Get your finished images that could not be delivered")
    @app_commands.guild_only()
    async def recover(interaction: discord.Interaction[Client]) -> None:
        with services.recovery.waited_for():
            await responses.defer(interaction, ephemeral=True)
            claim = Claim(
                interaction.user.id,
                interaction.token,
                upload_limit=interactions.upload_limit(interaction),
                at=interaction.created_at,
            )
            text = await _claimed(services, claim, locale=interactions.locale(interaction))
            if text is not None:
                await interaction.followup.send(text, ephemeral=True)

    return recover


async def _claimed(services: Services, claim: Claim, *, locale: str) -> str | None:
    """Hand over a kept picture; returns what there is to say beside it."""
    try:
        return results.claimed(await services.outcomes.claim(claim), locale=locale)
    except JobFailed as failure:
        log.warning("a kept image could not be handed over: %s", operator.failure(failure))
        return results.still_kept(locale=locale)
