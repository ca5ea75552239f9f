"""/privacy and /my-data: what the bot stores about a person, all of it as a file, and its deletion.

Blocked people may use them too, also in a direct message, and while the bot is paused.
"""

from __future__ import annotations

import asyncio
import gzip
import json
from io import BytesIO
from typing import TYPE_CHECKING, Any, Self

import discord
from discord import app_commands

from bot.domain.errors import NotAllowed
from bot.text import privacy
from cogs import interactions, responses
from cogs.error_handler import answer_failure

if TYPE_CHECKING:
    import re

    from bot.discord_io.client import Client, Services

_EVERYWHERE = app_commands.AppCommandContext(guild=True, dm_channel=True, private_channel=False)


async def setup(bot: Client) -> None:
    bot.tree.add_command(privacy_command(bot.services))
    bot.tree.add_command(my_data_group(bot.services))
    bot.add_dynamic_items(DeleteButton)


def privacy_command(services: Services) -> app_commands.Command[Any, ..., None]:
    @app_commands.command(name="privacy", description="What this bot stores about you, for how long, and who sees it")
    async def show(interaction: discord.Interaction[Client]) -> None:
        text = privacy.notice(services.retention, locale=interactions.locale(interaction))
        await responses.respond(interaction, text, ephemeral=True)

    show.allowed_contexts = _EVERYWHERE
    return show


def my_data_group(services: Services) -> app_commands.Group:
    group = app_commands.Group(
        name="my-data", description="What this bot stores about you", allowed_contexts=_EVERYWHERE
    )

    @group.command(name="export", description="Get everything this bot stores about you, as a file (only you see it)")
    async def export(interaction: discord.Interaction[Client]) -> None:
        with services.recovery.waited_for():
            await responses.defer(interaction, ephemeral=True)
            found = await services.personal_data.export(interaction.user.id)
            limit = interactions.upload_limit(interaction)
            file = await asyncio.to_thread(_file, found, limit=limit)
            text = privacy.exported(locale=interactions.locale(interaction))
            await interaction.followup.send(text, file=file, ephemeral=True)

    @group.command(name="delete", description="Delete everything this bot stores about you")
    async def delete(interaction: discord.Interaction[Client]) -> None:
        with services.recovery.waited_for():
            waiting = await services.personal_data.count_waiting(interaction.user.id)
            text = privacy.confirm_deletion(waiting=waiting, locale=interactions.locale(interaction))
            await responses.respond(interaction, text, view=_confirmation(interaction.user.id), ephemeral=True)

    return group


def _file(found: dict[str, Any], *, limit: int) -> discord.File:
    """The export as a file; one that Discord would not accept is compressed."""
    content = json.dumps(found, ensure_ascii=False, indent=1).encode()
    if len(content) <= limit:
        return discord.File(BytesIO(content), privacy.EXPORT_FILE)
    return discord.File(BytesIO(gzip.compress(content)), f"{privacy.EXPORT_FILE}.gz")


def _confirmation(user_id: int) -> discord.ui.View:
    view = discord.ui.View(timeout=None)
    view.add_item(DeleteButton(user_id).item)
    view.stop()  # for sending only: its button is recognized by its id
    return view


class DeleteButton(
    discord.ui.DynamicItem[discord.ui.Button[discord.ui.View]], template=r"delete-data:(?P<user_id>\d{1,20})"
):
    """Deletes the data of the person it was made for, and only if that person presses it."""

    def __init__(self, user_id: int) -> None:
        style = discord.ButtonStyle.danger
        item = discord.ui.Button[discord.ui.View](
            label=privacy.DELETE_BUTTON, custom_id=f"delete-data:{user_id}", style=style
        )
        super().__init__(item)
        self.user_id = user_id

    @classmethod
    async def from_custom_id(
        cls, _interaction: discord.Interaction[Any], _item: discord.ui.Item[Any], match: re.Match[str], /
    ) -> Self:
        return cls(int(match["user_id"]))

    async def callback(self, interaction: discord.Interaction[Any]) -> None:
        services = interaction.client.services
        try:
            if interaction.user.id != self.user_id:
                raise NotAllowed("delete_data")
            with services.recovery.waited_for():
                await responses.defer(interaction, ephemeral=True, thinking=True)
                given_up = await services.personal_data.delete(interaction.user.id)
                text = privacy.deleted(given_up=given_up, locale=interactions.locale(interaction))
                await interaction.followup.send(text, ephemeral=True)
        except Exception as error:  # noqa: BLE001 - the error handler answers everything
            await answer_failure(interaction, error, services)
