"""What every way of asking for a picture shares: who asks, how they are answered, what they attached."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bot.discord_io import buttons
from bot.domain.models import Asker, Upload

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import discord

    from bot.discord_io.client import Client
    from bot.domain.models import Job

UPLOAD_LIMIT = 10 * 1024 * 1024  # bytes Discord takes anywhere, should an interaction not say


def asker(interaction: discord.Interaction[Client], *, private: bool = False) -> Asker:
    """Who speaks by `interaction`, and where."""
    return Asker(
        user_id=interaction.user.id,
        guild_id=interaction.guild_id,
        channel_id=interaction.channel_id or 0,
        interaction_id=interaction.id,
        token=interaction.token,
        asked_at=interaction.created_at,
        upload_limit=interaction.filesize_limit or UPLOAD_LIMIT,
        private=private,
    )


def answer(
    interaction: discord.Interaction[Client], *, private: bool = False
) -> Callable[[Job, str, bool], Awaitable[int]]:
    """The way to answer with a real message, not "thinking": a public one the bot may edit for ever."""

    async def send(job: Job, text: str, cancellable: bool) -> int:  # noqa: FBT001 - the use case calls it
        view = buttons.view(job, buttons.OF_WAITING if cancellable else ())
        response = await interaction.response.send_message(text, view=view, ephemeral=private)
        if response.message_id is None:
            return (await interaction.original_response()).id
        return response.message_id

    return send


def upload(attachment: discord.Attachment) -> Upload:
    return Upload(attachment.url, attachment.filename, attachment.size, attachment.content_type)


def moderates(interaction: discord.Interaction[Client]) -> bool:
    """Whether who speaks may manage messages where they do; Discord says so with every interaction."""
    return interaction.permissions.manage_messages


def is_private(interaction: discord.Interaction[Client]) -> bool:
    """Whether the message a button belongs to can be seen by one person only."""
    return interaction.message is not None and interaction.message.flags.ephemeral
