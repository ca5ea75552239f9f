"""/settings: what /thumbnail uses for a member who leaves an option out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import discord
from discord import app_commands

from bot.domain.models import Format, Model
from bot.domain.server_rules import DEFAULT, NO, YES, Preferences, chosen
from bot.text import formatting, settings
from cogs import interactions, responses

if TYPE_CHECKING:
    from typing import Any

    from bot.discord_io.client import Client, Services

    Choices = list[app_commands.Choice[str]]


async def setup(bot: Client) -> None:
    bot.tree.add_command(settings_command(bot.services))


def settings_command(services: Services) -> app_commands.Command[Any, ..., None]:
    models, formats, privacy = offered(settings.AS_IN_THE_SERVER)

    @app_commands.command(name="settings", description="What /thumbnail uses when you leave an option out")
    @app_commands.guild_only()
    @app_commands.describe(
        model="The model to use from now on",
        format="The format to use from now on",
        private="Whether only you see your results, until you share them",
        reset="Forget what you have chosen before",
    )
    @app_commands.choices(model=models, format=formats, private=privacy)
    async def command(
        interaction: discord.Interaction[Client],
        model: str | None = None,
        format: str | None = None,  # noqa: A002 - the name of the option of /thumbnail
        private: str | None = None,
        reset: bool = False,  # noqa: FBT001, FBT002 - Discord passes options by name
    ) -> None:
        before = await services.choices.own(interaction.user.id)
        wanted = chosen(Preferences() if reset else before, model=model, format_=format, private=private)
        if wanted != before:
            await services.choices.choose(interaction.user.id, wanted)
        here = await services.choices.here(interaction.guild_id)
        text = settings.of_member(wanted, here, locale=interactions.locale(interaction))
        await responses.respond(interaction, text, ephemeral=True)

    return command


def offered(otherwise: str) -> tuple[Choices, Choices, Choices]:
    """The choices of a model, a format, and privacy; the last of each, `otherwise`, takes an earlier one back."""
    unset = app_commands.Choice(name=otherwise, value=DEFAULT)
    return (
        [*(app_commands.Choice(name=formatting.MODELS[one], value=one.value) for one in Model), unset],
        [*(app_commands.Choice(name=formatting.FORMATS[one], value=one.value) for one in Format), unset],
        [app_commands.Choice(name="yes", value=YES), app_commands.Choice(name="no", value=NO), unset],
    )
