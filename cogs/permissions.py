"""Permissions in a channel, for events that do not carry them; computed following Discord's documentation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import discord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bot.discord_io.client import Client

_THREADS = (10, 11, 12)  # Discord's types: announcement, public, private


async def may_manage_messages(bot: Client, event: discord.RawReactionActionEvent) -> bool:
    """Whether the person who reacted has Manage Messages there; asks Discord for the server, member and channel."""
    guild_id = event.guild_id or 0
    guild: Any = await bot.http.get_guild(guild_id, with_counts=False)
    if int(guild["owner_id"]) == event.user_id:
        return True
    member: Any = await bot.http.get_member(guild_id, event.user_id)
    channel: Any = await bot.http.get_channel(event.channel_id)
    if channel["type"] in _THREADS:  # a thread has only its channel's overwrites
        channel = await bot.http.get_channel(channel["parent_id"])
    roles = {guild_id, *map(int, member["roles"])}
    granted = [int(role["permissions"]) for role in guild["roles"] if int(role["id"]) in roles]
    overwrites = channel.get("permission_overwrites", ())
    return permissions(granted, overwrites, guild_id, event.user_id, roles).manage_messages


def permissions(
    granted: Sequence[int], overwrites: Sequence[Any], guild_id: int, user_id: int, roles: set[int]
) -> discord.Permissions:
    """Role by role, then the channel's overwrites: for everyone, for the roles together, for the member.

    An administrator is above every overwrite, and no overwrite makes one. The owner is above all of this.
    """
    value = 0
    for one in granted:
        value |= one
    if discord.Permissions(value).administrator:
        return discord.Permissions.all()
    by_id = {int(one["id"]): (int(one["allow"]), int(one["deny"])) for one in overwrites}
    allow, deny = by_id.get(guild_id, (0, 0))
    value = value & ~deny | allow
    of_roles = [by_id[role] for role in roles - {guild_id} if role in by_id]
    for _, deny in of_roles:
        value &= ~deny
    for allow, _ in of_roles:
        value |= allow
    allow, deny = by_id.get(user_id, (0, 0))
    return discord.Permissions(value & ~deny | allow)
