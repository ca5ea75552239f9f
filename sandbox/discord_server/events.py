"""Message events, which the gateway sends to the sessions that subscribed to them."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from sandbox.discord_server.gateway import DIRECT_MESSAGES, DIRECT_REACTIONS, GUILD_MESSAGES, GUILD_REACTIONS, Gateway
from sandbox.discord_server.messages import emoji_payload
from sandbox.discord_server.payloads import Json, member, person

if TYPE_CHECKING:
    from sandbox.discord_server.messages import Message


class Events:
    """Sends no events about ephemeral messages. Events are lost while no bot is connected."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def send_message_delete(self, message: Message) -> None:
        event = {"id": str(message.id), "channel_id": str(message.channel_id)} | _guild(message)
        await self._send("MESSAGE_DELETE", message, event, (GUILD_MESSAGES, DIRECT_MESSAGES))

    async def send_reaction_add(
        self, message: Message, emoji: str, *, user_id: int, bot: bool = False, roles: tuple[int, ...] = ()
    ) -> None:
        event = _reaction(message, emoji, user_id) | {"message_author_id": str(message.author_id)}
        if message.guild_id is not None:
            fields = {"user": person(user_id, bot=bot), "roles": [str(role) for role in roles]}
            event["member"] = member() | fields
        await self._send_reaction("ADD", message, event)

    async def send_reaction_remove(self, message: Message, emoji: str, *, user_id: int) -> None:
        await self._send_reaction("REMOVE", message, _reaction(message, emoji, user_id))

    async def send_reactions_cleared(self, message: Message, emoji: str | None) -> None:
        """For one emoji, or for all of them if `emoji` is None."""
        event = {"channel_id": str(message.channel_id), "message_id": str(message.id)} | _guild(message)
        if emoji is None:
            await self._send_reaction("REMOVE_ALL", message, event)
        else:
            await self._send_reaction("REMOVE_EMOJI", message, event | {"emoji": emoji_payload(emoji)})

    async def _send_reaction(self, kind: str, message: Message, event: Json) -> None:
        await self._send(f"MESSAGE_REACTION_{kind}", message, event, (GUILD_REACTIONS, DIRECT_REACTIONS))

    async def _send(self, name: str, message: Message, event: Json, intents: tuple[int, int]) -> None:
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
