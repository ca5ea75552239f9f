"""A command that stands in for the menu of a message: the page has no menu, so nobody could click *Make thumbnail*."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import discord
from discord import app_commands

if TYPE_CHECKING:
    from bot.discord_io.client import Client

NAME = "menu-make-thumbnail"
_MENU = "Make thumbnail"
_LOOKED_THROUGH = 50  # messages
_CHOICES = 25  # as many as Discord shows


def add(client: Client) -> None:
    """Add the command to those that `client` registers."""

    @app_commands.command(name=NAME, description="In Discord: right-click a message → Apps → Make thumbnail")
    @app_commands.describe(message="The message with the image (default: the newest)")
    @app_commands.guild_only()
    async def choose(interaction: discord.Interaction[Any], message: str | None = None) -> None:
        messages = await _with_images(interaction)
        chosen = next((each for each in messages if message in {None, str(each.id)}), None)
        if chosen is None:
            await interaction.response.send_message("There is no such message with an image.", ephemeral=True)
            return
        menu = client.tree.get_command(_MENU, type=discord.AppCommandType.message)
        assert isinstance(menu, app_commands.ContextMenu)
        callback: Any = menu.callback
        await callback(interaction, chosen)

    @choose.autocomplete("message")
    async def offer(interaction: discord.Interaction[Any], typed: str) -> list[app_commands.Choice[str]]:
        labels = {str(each.id): _label(each) for each in await _with_images(interaction)}
        fitting = [(label, key) for key, label in labels.items() if typed.lower() in label.lower()]
        return [app_commands.Choice(name=label, value=key) for label, key in fitting[:_CHOICES]]

    client.tree.add_command(choose)


async def _with_images(interaction: discord.Interaction[Any]) -> list[discord.Message]:
    """The messages of the channel that have an image, newest first."""
    channel = interaction.channel
    assert isinstance(channel, discord.abc.Messageable)
    return [message async for message in channel.history(limit=_LOOKED_THROUGH) if message.attachments]


def _label(message: discord.Message) -> str:
    return f"{message.author.display_name}: {message.attachments[0].filename}"[:100]
