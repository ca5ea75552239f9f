"""What happens to messages, as the gateway tells it to those who asked for it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from sandbox.discord_server.gateway import DIRECT_MESSAGES, DIRECT_REACTIONS, GUILD_MESSAGES, GUILD_REACTIONS, Gateway
from sandbox.discord_server.messages import emoji_payload
from sandbox.discord_server.payloads import Json, member, person

if TYPE_CHECKING:
    from sandbox.discord_server.messages import Message


class Events:
    """Nothing of ephemeral messages is told; what happens while nobody listens is lost."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def deleted(self, message: Message) -> None:
        event = {"id": str(message.id), "channel_id": str(message.channel_id)} | _guild(message)
        await self._tell("MESSAGE_DELETE", message, event, (GUILD_MESSAGES, DIRECT_MESSAGES))

    async def reacted(
        self, message: Message, emoji: str, *, user_id: int, bot: bool = False, roles: tuple[int, ...] = ()
    ) -> None:
        event = _reaction(message, emoji, user_id) | {"message_author_id": str(message.author_id)}
        if message.guild_id is not None:
            who = {"user": person(user_id, bot=bot), "roles": [str(role) for role in roles]}
            event["member"] = member() | who
        await self._tell_reaction("ADD", message, event)

    async def unreacted(self, message: Message, emoji: str, *, user_id: int) -> None:
        await self._tell_reaction("REMOVE", message, _reaction(message, emoji, user_id))

    async def cleared(self, message: Message, emoji: str | None) -> None:
        """Of one emoji, or of all."""
        event = {"channel_id": str(message.channel_id), "message_id": str(message.id)} | _guild(message)
        if emoji is None:
            await self._tell_reaction("REMOVE_ALL", message, event)
        else:
            await self._tell_reaction("REMOVE_EMOJI", message, event | {"emoji": emoji_payload(emoji)})

    async def _tell_reaction(self, what: str, message: Message, event: Json) -> None:
        await self._tell(f"MESSAGE_REACTION_{what}", message, event, (GUILD_REACTIONS, DIRECT_REACTIONS))

    async def _tell(self, name: str, message: Message, event: Json, intents: tuple[int, int]) -> None:
        if message.ephemeral:
            return
        in_guild, direct = intents
        intent = direct if message.guild_id is None else in_guild
        with suppress(ConnectionError):
            await self._gateway.dispatch(name, event, guild_id=message.guild_id, intent=intent)


def _reaction(message: Message, emoji: str, user_id: int) -> Json:
    event: Json = {
        "user_id": str(user_id),
        "channel_id": str(message.channel_id),
        "message_id": str(message.id),
        "emoji": emoji_payload(emoji),
        "type": 0,
        "burst": False,
    }
    return event | _guild(message)


def _guild(message: Message) -> Json:
    return {} if message.guild_id is None else {"guild_id": str(message.guild_id)}
