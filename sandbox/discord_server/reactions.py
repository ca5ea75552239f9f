"""Reactions by users and by the bot: permissions, limits and events."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sandbox.discord_server.api_errors import ApiError
from sandbox.discord_server.payloads import (
    ADD_REACTIONS,
    APPLICATION_ID,
    MANAGE_MESSAGES,
    ORDINARY_PERMISSIONS,
    READ_HISTORY,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandbox.discord_server.events import Events
    from sandbox.discord_server.messages import Message

EMOJI_LIMIT = 20
CUSTOM_EMOJI = re.compile(r"\w{1,32}:\d{1,20}")


class Reactions:
    """Checks the bot's permissions, but not those of users."""

    def __init__(self, events: Events, permissions: Mapping[int, int]) -> None:
        self._events = events
        self._permissions = permissions

    async def add(
        self, message: Message, emoji: str, *, user_id: int, bot: bool = False, roles: tuple[int, ...] = ()
    ) -> None:
        """Sends the event even if the reaction already exists, because Discord can send an event twice."""
        _record(message, emoji, user_id)
        await self._events.send_reaction_add(message, emoji, user_id=user_id, bot=bot, roles=roles)

    async def add_own(self, message: Message, emoji: str) -> None:
        """Sends an event only for a new reaction."""
        exists = emoji in message.reactions
        self._require(message, READ_HISTORY if exists else READ_HISTORY | ADD_REACTIONS)
        if not exists and len(message.reactions) >= EMOJI_LIMIT:
            raise ApiError.from_code(30010)
        if emoji.isascii() and not CUSTOM_EMOJI.fullmatch(emoji):
            raise ApiError.from_code(10014)
        if _record(message, emoji, APPLICATION_ID):
            await self._events.send_reaction_add(message, emoji, user_id=APPLICATION_ID)

    async def remove(self, message: Message, emoji: str, *, user_id: int) -> None:
        """Sends no event if the reaction does not exist."""
        users = message.reactions.get(emoji, set())
        if user_id not in users:
            return
        users.remove(user_id)
        if not users:
            del message.reactions[emoji]
        message.condition.notify()
        await self._events.send_reaction_remove(message, emoji, user_id=user_id)

    async def remove_by_bot(self, message: Message, emoji: str, *, user_id: int) -> None:
        if user_id != APPLICATION_ID:
            self._require_moderation(message)
        await self.remove(message, emoji, user_id=user_id)

    async def clear_by_bot(self, message: Message, emoji: str | None) -> None:
        """Removes every reaction with this emoji, or with any emoji if it is None."""
        self._require_moderation(message)
        if emoji is None:
            message.reactions.clear()
        else:
            message.reactions.pop(emoji, None)
        message.condition.notify()
        await self._events.send_reactions_cleared(message, emoji)

    def _require_moderation(self, message: Message) -> None:
        """A bot cannot remove other users' reactions in direct messages."""
        if message.guild_id is None:
            raise ApiError.from_code(50003)
        self._require(message, MANAGE_MESSAGES)

    def _require(self, message: Message, permissions: int) -> None:
        held = self._permissions.get(APPLICATION_ID, ORDINARY_PERMISSIONS)
        if message.guild_id is not None and held & permissions != permissions:
            raise ApiError.from_code(50013)


def _record(message: Message, emoji: str, user_id: int) -> bool:
    """Returns whether the reaction is new."""
    users = message.reactions.setdefault(emoji, set())
    new = user_id not in users
    users.add(user_id)
    message.condition.notify()
    return new
