"""What every way of requesting an image shares: who requests it, how they are answered, what they attached."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bot.discord_io import buttons
from bot.domain.errors import NotAllowed
from bot.domain.models import DEFAULT_UPLOAD_LIMIT, Requester, Upload
from bot.domain.server_rules import Change
from bot.text import results
from cogs import responses

if TYPE_CHECKING:
    import discord

    from bot.discord_io.client import Client
    from bot.domain.models import Job, Status, ThumbnailRequest


async def accept(
    interaction: discord.Interaction[Client],
    request: ThumbnailRequest,
    *,
    private: bool = False,
    parent: Job | None = None,
) -> None:
    """Pass a request on, answered with a real message instead of "thinking": the bot can edit a public one at any
    time.
    """

    async def reply(job: Job, status: Status) -> int:
        text, view = results.status(job, status), buttons.of_status(job, status)
        return await responses.respond(interaction, text, view=view, ephemeral=private)

    lifecycle = interaction.client.services.lifecycle
    await lifecycle.accept(request, requester(interaction, private=private), reply, parent=parent)


def requester(interaction: discord.Interaction[Client], *, private: bool = False) -> Requester:
    """Who made the request, and where."""
    locale = interaction.locale if private else interaction.guild_locale or interaction.locale
    return Requester(
        user_id=interaction.user.id,
        guild_id=interaction.guild_id,
        channel_id=interaction.channel_id or 0,
        interaction_id=interaction.id,
        token=interaction.token,
        asked_at=interaction.created_at,
        upload_limit=upload_limit(interaction),
        private=private,
        locale=locale.value,
        roles=role_ids(interaction.user),
        joined_at=getattr(interaction.user, "joined_at", None),
        parent_channel_id=getattr(interaction.channel, "parent_id", None),
    )


def role_ids(person: discord.User | discord.Member) -> frozenset[int]:
    """The ids of somebody's roles. `Member.roles` has only those that are in the cache, and none are."""
    return frozenset(getattr(person, "_roles", ()))


def check_admin(interaction: discord.Interaction[Client]) -> int:
    """The server that the person may administer; Discord says with every interaction who may. Raises `NotAllowed`, and
    `ServerNotAllowed` where the operator does not offer the bot.
    """
    if interaction.guild_id is None or not interaction.permissions.manage_guild:
        raise NotAllowed("admin")
    interaction.client.services.admission.access.check_server(interaction.guild_id)
    return interaction.guild_id


def change(interaction: discord.Interaction[Client], *, target: int = 0) -> Change:
    """A change by an admin of the server, as it is written down; raises as `check_admin` does. `target` is the user it
    is about.
    """
    guild_id = check_admin(interaction)
    name = interaction.command.qualified_name if interaction.command is not None else ""
    return Change(interaction.user.id, guild_id, name, interaction.created_at, target)


def upload(attachment: discord.Attachment) -> Upload:
    size = {"width": attachment.width, "height": attachment.height}
    return Upload(attachment.url, attachment.filename, attachment.size, attachment.content_type, **size)


def upload_limit(interaction: discord.Interaction[Client]) -> int:
    """Bytes that Discord accepts here in one file; some interactions do not say."""
    return interaction.filesize_limit or DEFAULT_UPLOAD_LIMIT


def locale(interaction: discord.Interaction[Client]) -> str:
    """The language of the person, for what only they see."""
    return interaction.locale.value


def is_moderator(interaction: discord.Interaction[Client]) -> bool:
    """Whether the person has Manage Messages in the channel; Discord says so with every interaction."""
    return interaction.permissions.manage_messages


def message_id(interaction: discord.Interaction[Client]) -> int | None:
    """The message that a button is on, or that a form was opened from."""
    return None if interaction.message is None else interaction.message.id


async def wants_private(interaction: discord.Interaction[Client]) -> bool:
    """Whether only the person shall see the result: an option of a command, else as the message of a form, else as the
    person has chosen.
    """
    option: bool | None = getattr(interaction.namespace, "private", None)
    if option is not None:
        return option
    if interaction.message is not None:
        return is_private(interaction)
    choices = interaction.client.services.choices
    return (await choices.of(interaction.user.id, interaction.guild_id)).private


def is_private(interaction: discord.Interaction[Client]) -> bool:
    """Whether the message that a button is on, or that a form was opened from, is ephemeral."""
    return interaction.message is not None and interaction.message.flags.ephemeral


def repeats_privately(interaction: discord.Interaction[Client], job: Job) -> bool:
    """Whether only the person sees what a button or a form for `job` makes: like the result that it is on, and like
    the job itself where it is in a list.
    """
    if interaction.message is not None and interaction.message.id in (job.message_id, job.shared_id):
        return is_private(interaction)
    return job.requester.private and job.shared_id is None
