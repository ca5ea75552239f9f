"""Reactions of people and of the bot: who may, what stays, what is told."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sandbox.discord_server.api_errors import Refusal
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
    """The bot is held to its permissions; people are trusted to have had theirs."""

    def __init__(self, events: Events, permissions: Mapping[int, int]) -> None:
        self._events = events
        self._permissions = permissions

    async def add(
        self, message: Message, emoji: str, *, user_id: int, bot: bool = False, roles: tuple[int, ...] = ()
    ) -> None:
        """Told again when it is there already, as an event may come twice."""
        _place(message, emoji, user_id)
        await self._events.reacted(message, emoji, user_id=user_id, bot=bot, roles=roles)

    async def add_own(self, message: Message, emoji: str) -> None:
        """Told only when it is new."""
        known = emoji in message.reactions
        self._require(message, READ_HISTORY if known else READ_HISTORY | ADD_REACTIONS)
        if not known and len(message.reactions) >= EMOJI_LIMIT:
            raise Refusal.known(30010)
        if emoji.isascii() and not CUSTOM_EMOJI.fullmatch(emoji):
            raise Refusal.known(10014)
        if _place(message, emoji, APPLICATION_ID):
            await self._events.reacted(message, emoji, user_id=APPLICATION_ID)

    async def remove(self, message: Message, emoji: str, *, user_id: int) -> None:
        """Of a reaction that is not there nothing is told."""
        users = message.reactions.get(emoji, set())
        if user_id not in users:
            return
        users.remove(user_id)
        if not users:
            del message.reactions[emoji]
        message.signal.changed()
        await self._events.unreacted(message, emoji, user_id=user_id)

    async def remove_by_bot(self, message: Message, emoji: str, *, user_id: int) -> None:
        if user_id != APPLICATION_ID:
            self._require_moderation(message)
        await self.remove(message, emoji, user_id=user_id)

    async def clear_by_bot(self, message: Message, emoji: str | None) -> None:
        """One emoji, or with None all of them."""
        self._require_moderation(message)
        if emoji is None:
            message.reactions.clear()
        else:
            message.reactions.pop(emoji, None)
        message.signal.changed()
        await self._events.cleared(message, emoji)

    def _require_moderation(self, message: Message) -> None:
        """Others' reactions in direct messages are nobody's to take away."""
        if message.guild_id is None:
            raise Refusal.known(50003)
        self._require(message, MANAGE_MESSAGES)

    def _require(self, message: Message, permissions: int) -> None:
        held = self._permissions.get(APPLICATION_ID, ORDINARY_PERMISSIONS)
        if message.guild_id is not None and held & permissions != permissions:
            raise Refusal.known(50013)


def _place(message: Message, emoji: str, user_id: int) -> bool:
    """Whether it was not there before."""
    users = message.reactions.setdefault(emoji, set())
    new = user_id not in users
    users.add(user_id)
    message.signal.changed()
    return new
