"""The one desk for failures of commands: a refusal becomes its words, the unforeseen is logged and still answered."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING

import aiohttp
import discord
from discord import app_commands

from bot.domain.errors import AlreadyTaken, Refused
from bot.text import words

if TYPE_CHECKING:
    from bot.discord_io.client import Client, Services

log = logging.getLogger(__name__)

_UNKNOWN_INTERACTION = 10062  # Discord has already told the member that nobody answered


async def setup(bot: Client) -> None:
    services = bot.services

    async def on_error(interaction: discord.Interaction[Client], error: app_commands.AppCommandError) -> None:
        await answer_failure(interaction, _cause(error), services)

    bot.tree.error(on_error)


def _cause(error: BaseException) -> BaseException:
    return error.original if isinstance(error, app_commands.CommandInvokeError) else error


async def answer_failure(interaction: discord.Interaction[Client], error: BaseException, services: Services) -> None:
    """Answer `interaction` privately for `error`; the answer itself may fail, and then only the log knows."""
    match error:
        case AlreadyTaken():
            return
        case Refused():
            services.refused(type(error).__name__)
            text = words.refusal(error, now=services.clock())
        case discord.HTTPException(code=code) if code == _UNKNOWN_INTERACTION:
            log.warning("Discord gave up waiting for the answer to a command")
            return
        case _:
            log.error("a command met an unforeseen fault", exc_info=error)
            text = words.UNFORESEEN
    with suppress(discord.DiscordException, aiohttp.ClientError, OSError, RuntimeError):  # a closed session is the last
        if interaction.response.is_done():
            await interaction.followup.send(text, ephemeral=True)
        else:
            await interaction.response.send_message(text, ephemeral=True)
