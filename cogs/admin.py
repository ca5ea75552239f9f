"""/thumbnail-admin: limits, extra credits, and blocks, for the admins of a server.

The rights are checked at every call: the command's default permissions only say who sees it, and a server may change
those.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING

import discord
from discord import app_commands

from bot.domain.errors import InvalidSetting
from bot.domain.server_rules import MOST_CREDITS, NO_LIMIT, REMOVE, LimitKind
from bot.domain.usage import MOST_SHOWN
from bot.jobs.administration import LimitTarget
from bot.text import admin
from cogs import interactions, responses, server_settings
from cogs.error_handler import UNREACHABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bot.discord_io.client import Client, Services

    Admin = discord.Interaction[Client]
    Choices = list[app_commands.Choice[str]]

REASON_LENGTH = 200
_NAMES_SECONDS = 3.0  # for what members are called; their ids have to do otherwise
_MOST_DAYS = 3650
_WHOSE = [
    app_commands.Choice(name="every member", value=LimitKind.EVERYONE.value),
    app_commands.Choice(name="the whole server", value=LimitKind.SERVER.value),
]


async def setup(bot: Client) -> None:
    group = app_commands.Group(
        name="thumbnail-admin",
        description="Limits, blocks, and settings of the thumbnails in this server",
        guild_only=True,
        default_permissions=discord.Permissions(manage_guild=True),
    )
    add_usage(group, bot.services)
    add_limit(group, bot.services)
    add_grant(group, bot.services)
    add_blocks(group, bot.services)
    server_settings.add_to(group, bot.services)
    bot.tree.add_command(group)


def add_usage(group: app_commands.Group, services: Services) -> None:
    @group.command(name="usage", description="Who used what in the last 7 and 30 days")
    async def usage(interaction: discord.Interaction[Client]) -> None:
        guild_id = interactions.check_admin(interaction)
        with services.recovery.waited_for():
            await responses.defer(interaction, ephemeral=True, thinking=True)
            found = await services.administration.usage(guild_id, interaction.created_at)
            shown = [user_id for user_id, _ in found.by_member()[:MOST_SHOWN] if user_id]
            names = await _names(interaction.client, guild_id, shown)
            picture = await services.draw_usage(found, names) if found.rows else None
            text = admin.usage(found, locale=interactions.locale(interaction))
            files = [] if picture is None else [discord.File(BytesIO(picture), "usage.png", description=admin.CHART)]
            await interaction.edit_original_response(content=text, attachments=files)


async def _names(bot: Client, guild_id: int, members: Sequence[int]) -> dict[int, str]:
    """What members are called in a server, as far as Discord says so in time."""
    names: dict[int, str] = {}

    async def ask(user_id: int) -> None:
        with suppress(*UNREACHABLE):
            member = await bot.http.get_member(guild_id, user_id)
            user = member["user"]
            names[user_id] = member.get("nick") or user.get("global_name") or user["username"]

    with suppress(TimeoutError):
        async with asyncio.timeout(_NAMES_SECONDS):
            await asyncio.gather(*map(ask, members))
    return names


def add_limit(group: app_commands.Group, services: Services) -> None:
    @group.command(name="limit", description="Set or remove a limit; without options, show them all")
    @app_commands.describe(
        member="Whose limit to set",
        role="Each member with this role has the limit",
        whose="Or the limit of everyone who has no other, or of all together",
        day=f"Credits per day: a number, {NO_LIMIT}, or {REMOVE}",
        month=f"Credits per month: a number, {NO_LIMIT}, or {REMOVE}",
    )
    @app_commands.choices(whose=_WHOSE)
    async def limit(
        interaction: discord.Interaction[Client],
        member: discord.User | None = None,
        role: discord.Role | None = None,
        whose: str | None = None,
        day: str | None = None,
        month: str | None = None,
    ) -> None:
        change = interactions.change(interaction, target=0 if member is None else member.id)
        administration = services.administration
        with services.recovery.waited_for():
            if any(one is not None for one in (member, role, whose, day, month)):
                target = _target(member, role, whose)
                rules = await administration.set_limit(change, target, day=day, month=month)
            else:
                rules = await administration.rules(change.guild_id)
        text = admin.limits(rules, administration.quota, locale=interactions.locale(interaction))
        await responses.respond(interaction, text, ephemeral=True)

    @limit.autocomplete("day")
    @limit.autocomplete("month")
    async def amounts(_: discord.Interaction[Client], typed: str) -> Choices:
        return [app_commands.Choice(name=one, value=one) for one in (typed, NO_LIMIT, REMOVE) if one]


def _target(member: discord.User | None, role: discord.Role | None, whose: str | None) -> LimitTarget:
    """Raises `InvalidSetting` unless exactly one is given."""
    given = [
        *([LimitTarget(LimitKind.MEMBER, member.id)] if member is not None else []),
        *([LimitTarget(LimitKind.ROLE, role.id)] if role is not None else []),
        *([LimitTarget(LimitKind(whose))] if whose is not None else []),
    ]
    if len(given) != 1:
        raise InvalidSetting("limit_target")
    return given[0]


def add_grant(group: app_commands.Group, services: Services) -> None:
    @group.command(name="grant", description="Give a member extra credits, or take back what is left of them")
    @app_commands.describe(
        member="Who gets them",
        amount="How many; a negative number takes back at most what is left",
        reason="Why; it is written down with your name",
    )
    async def grant(
        interaction: discord.Interaction[Client],
        member: discord.User,
        amount: app_commands.Range[int, -MOST_CREDITS, MOST_CREDITS],
        reason: app_commands.Range[str, 1, REASON_LENGTH],
    ) -> None:
        change = interactions.change(interaction, target=member.id)
        with services.recovery.waited_for():
            extra = await services.administration.grant(change, amount, reason)
        text = admin.granted(member.id, extra, locale=interactions.locale(interaction))
        await responses.respond(interaction, text, ephemeral=True)


def add_blocks(group: app_commands.Group, services: Services) -> None:
    @group.command(name="block", description="Keep a member from using the bot in this server")
    @app_commands.describe(
        member="Who may not use it", reason="Why; the member can read it", days="For how many days (default: for good)"
    )
    async def block(
        interaction: discord.Interaction[Client],
        member: discord.User,
        reason: app_commands.Range[str, 1, REASON_LENGTH],
        days: app_commands.Range[int, 1, _MOST_DAYS] | None = None,
    ) -> None:
        change = interactions.change(interaction, target=member.id)
        with services.recovery.waited_for():
            found = await services.administration.block(change, reason, days=days)
        await responses.respond(
            interaction, admin.blocks(found, locale=interactions.locale(interaction)), ephemeral=True
        )

    @group.command(name="unblock", description="Let a blocked member use the bot again")
    @app_commands.describe(member="Who may use it again")
    async def unblock(interaction: discord.Interaction[Client], member: discord.User) -> None:
        change = interactions.change(interaction, target=member.id)
        with services.recovery.waited_for():
            lifted, found = await services.administration.unblock(change)
        text = admin.unblocked(found, lifted=lifted, locale=interactions.locale(interaction))
        await responses.respond(interaction, text, ephemeral=True)
