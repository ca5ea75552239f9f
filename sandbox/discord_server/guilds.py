"""Guilds and their members: owner, roles, overwrites, bots, threads, closed DMs. Tests set them; REST shows them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sandbox.discord_server.api_errors import ApiError
from sandbox.discord_server.payloads import (
    GUILD_ID,
    ORDINARY_PERMISSIONS,
    OWNER_ID,
    Channels,
    Json,
    guild,
    member,
    person,
    role,
)
from sandbox.discord_server.responses import json_response, path_id

if TYPE_CHECKING:
    from aiohttp import web

    from sandbox.discord_server.channels import Routes

ROLE_OVERWRITE, MEMBER_OVERWRITE = 0, 1
PUBLIC_THREAD = 11
_GATEWAY_ONLY = (
    "channels",
    "members",
    "threads",
    "presences",
    "voice_states",
    "stage_instances",
    "guild_scheduled_events",
    "member_count",
    "large",
    "unavailable",
    "joined_at",
)


@dataclass(slots=True, kw_only=True)
class Guilds:
    """The members of every guild and their permissions. A user who is not listed is an ordinary member."""

    joined: set[int] = field(default_factory=lambda: {GUILD_ID})  # the guilds the bot is in
    owner: int = OWNER_ID
    everyone: int = ORDINARY_PERMISSIONS  # permissions of @everyone, the role with the guild's own id
    roles: dict[int, int] = field(default_factory=dict)  # role id -> permissions
    members: dict[int, tuple[int, ...]] = field(default_factory=dict)  # user id -> role ids
    bots: set[int] = field(default_factory=set)
    departed: set[int] = field(default_factory=set)  # users who left the guild
    overwrites: dict[int, list[Json]] = field(default_factory=dict)  # by channel id
    threads: dict[int, int] = field(default_factory=dict)  # thread id -> parent channel id
    dms_closed: set[int] = field(default_factory=set)  # users who accept no direct messages

    def joined_by(self, shard: tuple[int, int]) -> list[int]:
        """The guilds of the bot that fall to this shard."""
        return [guild_id for guild_id in self.joined if covers(shard, guild_id)]

    def overwrite(
        self, channel_id: int, subject: int, *, allow: int = 0, deny: int = 0, of_member: bool = False
    ) -> None:
        """Adds a channel overwrite for a role (the id of @everyone is the guild's id) or for a member."""
        kind = MEMBER_OVERWRITE if of_member else ROLE_OVERWRITE
        entry = {"id": str(subject), "type": kind, "allow": str(allow), "deny": str(deny)}
        self.overwrites.setdefault(channel_id, []).append(entry)

    def guild_payload(self, guild_id: int) -> Json:
        """The guild as REST shows it, without the fields that only the gateway sends."""
        others = [role(role_id) | {"permissions": str(held)} for role_id, held in self.roles.items()]
        everyone = role(guild_id) | {"name": "@everyone", "permissions": str(self.everyone)}
        shown = guild(guild_id) | {"owner_id": str(self.owner), "roles": [everyone, *others]}
        return {name: value for name, value in shown.items() if name not in _GATEWAY_ONLY}

    def member_payload(self, user_id: int) -> Json:
        if user_id in self.departed:
            raise ApiError.from_code(10007)
        roles = [str(role_id) for role_id in self.members.get(user_id, ())]
        return member() | {"user": person(user_id, bot=user_id in self.bots), "roles": roles}

    def channel_payload(self, payload: Json) -> Json:
        """A channel has overwrites; a thread has a parent instead."""
        channel_id = int(payload["id"])
        if channel_id not in self.threads:
            return payload | {"permission_overwrites": self.overwrites.get(channel_id, [])}
        parent = {"type": PUBLIC_THREAD, "parent_id": str(self.threads[channel_id])}
        return {name: value for name, value in payload.items() if name != "permission_overwrites"} | parent


def covers(shard: tuple[int, int], guild_id: int | None) -> bool:
    """Whether the guild falls to this shard, given by its number and the number of all. What is in no guild falls to
    the first one.
    """
    number, total = shard
    return ((guild_id or 0) >> 22) % total == number


class GuildRoutes:
    """The REST routes of guilds, members and channel permissions."""

    def __init__(self, guilds: Guilds, channels: Channels) -> None:
        self._guilds = guilds
        self._channels = channels

    def routes(self) -> Routes:
        return (
            ("GET", "/users/@me/guilds", self._own_guilds),
            ("GET", "/guilds/{guild:\\d+}", self._guild),
            ("GET", "/guilds/{guild:\\d+}/members/{user:\\d+}", self._member),
            ("GET", "/channels/{channel:\\d+}", self._channel),
        )

    async def _own_guilds(self, request: web.Request) -> web.Response:
        """The guilds of the bot in the order of their ids, in pages."""
        after, limit = (int(request.query.get(name, default)) for name, default in (("after", "0"), ("limit", "200")))
        listed = [guild_id for guild_id in sorted(self._guilds.joined) if guild_id > after][:limit]
        return json_response([self._guilds.guild_payload(guild_id) for guild_id in listed])

    async def _guild(self, request: web.Request) -> web.Response:
        return json_response(self._guilds.guild_payload(path_id(request, "guild")))

    async def _member(self, request: web.Request) -> web.Response:
        return json_response(self._guilds.member_payload(path_id(request, "user")))

    async def _channel(self, request: web.Request) -> web.Response:
        channel_id = path_id(request, "channel")
        payload = self._channels.payload(channel_id)
        return json_response(
            payload if self._channels.guild_id(channel_id) is None else self._guilds.channel_payload(payload)
        )
