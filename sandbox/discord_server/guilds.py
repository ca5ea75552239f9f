"""Guilds and their members: roles, overwrites, owner, bots, threads, closed doors; set by tests, shown by REST."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sandbox.discord_server.api_errors import Refusal
from sandbox.discord_server.payloads import ORDINARY_PERMISSIONS, OWNER_ID, Channels, Json, guild, member, person, role
from sandbox.discord_server.responses import number, reply

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp import web

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
class Society:
    """Holds for every guild: who is in it and what they may do. Who is not named is an ordinary member."""

    owner: int = OWNER_ID
    everyone: int = ORDINARY_PERMISSIONS  # of the role that has the guild's own id
    roles: dict[int, int] = field(default_factory=dict)  # permissions of the others
    members: dict[int, tuple[int, ...]] = field(default_factory=dict)  # who has which roles
    bots: set[int] = field(default_factory=set)
    gone: set[int] = field(default_factory=set)  # who left the guild
    overwrites: dict[int, list[Json]] = field(default_factory=dict)  # by channel
    threads: dict[int, int] = field(default_factory=dict)  # the channel that each belongs to
    closed: set[int] = field(default_factory=set)  # who takes no direct messages

    def overwrite(
        self, channel_id: int, subject: int, *, allow: int = 0, deny: int = 0, of_member: bool = False
    ) -> None:
        """An exception in a channel, for a role (everyone's has the guild's id) or for a member."""
        kind = MEMBER_OVERWRITE if of_member else ROLE_OVERWRITE
        made = {"id": str(subject), "type": kind, "allow": str(allow), "deny": str(deny)}
        self.overwrites.setdefault(channel_id, []).append(made)

    def guild(self, guild_id: int) -> Json:
        """As REST shows it, which is less than what the gateway tells."""
        others = [role(role_id) | {"permissions": str(held)} for role_id, held in self.roles.items()]
        everyone = role(guild_id) | {"name": "@everyone", "permissions": str(self.everyone)}
        shown = guild(guild_id) | {"owner_id": str(self.owner), "roles": [everyone, *others]}
        return {name: value for name, value in shown.items() if name not in _GATEWAY_ONLY}

    def member(self, user_id: int) -> Json:
        if user_id in self.gone:
            raise Refusal.known(10007)
        roles = [str(role_id) for role_id in self.members.get(user_id, ())]
        return member() | {"user": person(user_id, bot=user_id in self.bots), "roles": roles}

    def channel(self, payload: Json) -> Json:
        """A channel with its overwrites; a thread has a parent and none of its own."""
        channel_id = int(payload["id"])
        if channel_id not in self.threads:
            return payload | {"permission_overwrites": self.overwrites.get(channel_id, [])}
        parent = {"type": PUBLIC_THREAD, "parent_id": str(self.threads[channel_id])}
        return {name: value for name, value in payload.items() if name != "permission_overwrites"} | parent


class GuildRoutes:
    """The REST routes of guilds and of channels' rights."""

    def __init__(self, society: Society, channels: Channels) -> None:
        self._society = society
        self._channels = channels

    def routes(self) -> tuple[tuple[str, str, Callable[[web.Request], Awaitable[web.StreamResponse]]], ...]:
        return (
            ("GET", "/guilds/{guild:\\d+}", self._guild),
            ("GET", "/guilds/{guild:\\d+}/members/{user:\\d+}", self._member),
            ("GET", "/channels/{channel:\\d+}", self._channel),
        )

    async def _guild(self, request: web.Request) -> web.Response:
        return reply(self._society.guild(number(request, "guild")))

    async def _member(self, request: web.Request) -> web.Response:
        return reply(self._society.member(number(request, "user")))

    async def _channel(self, request: web.Request) -> web.Response:
        channel_id = number(request, "channel")
        payload = self._channels.payload(channel_id)
        return reply(payload if self._channels.guild_id(channel_id) is None else self._society.channel(payload))
