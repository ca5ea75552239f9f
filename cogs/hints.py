"""Short-lived lines in a channel, for people whose direct messages are closed. None stays behind, even after a kill."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress
from typing import TYPE_CHECKING

import discord

from bot.domain.errors import BotError
from cogs.error_handler import UNREACHABLE

if TYPE_CHECKING:
    from bot.discord_io.client import Client

log = logging.getLogger(__name__)

_STORED = "reaction_hints"  # the name of the value that outlives a restart
_MOST_STORED = 50  # hints that Discord has not deleted yet; the oldest are forgotten beyond it
_CLOSING_SECONDS = 5.0  # for deleting the hints that are shown when the bot stops


class Hints:
    """Shows one hint per channel for `seconds`, and records its message until that is deleted."""

    def __init__(self, bot: Client, *, seconds: float) -> None:
        self._bot = bot
        self._seconds = seconds
        self._tasks: dict[int, asyncio.Task[None]] = {}  # by channel: the hint that is shown there
        self._undeleted: dict[int, int] = {}  # message id -> channel id, as stored
        self._cleaning: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    async def load(self) -> None:
        """Begin to delete what the last process has left behind."""
        try:
            stored = await self._bot.services.values.get_value(_STORED)
        except BotError as error:
            log.warning("the hints of the last process are unknown: %s", type(error).__name__)
            return
        self._undeleted = dict(json.loads(stored)) if stored else {}
        self._cleaning = asyncio.create_task(self._delete_all(), name="old-hints")

    async def close(self) -> None:
        """Delete every hint that is shown."""
        self._stopping.set()
        running = [*self._tasks.values(), *([self._cleaning] if self._cleaning else [])]
        if running:
            await asyncio.wait(running, timeout=_CLOSING_SECONDS)

    def show(self, guild_id: int | None, channel_id: int, text: str) -> bool:
        """Show a hint in a channel; False if one is already shown there."""
        if channel_id in self._tasks or self._stopping.is_set():
            return False
        channel = self._bot.get_partial_messageable(channel_id, guild_id=guild_id)
        task = asyncio.create_task(self._show_for_a_while(channel, text), name="reaction-hint")
        self._tasks[channel_id] = task
        task.add_done_callback(lambda _: self._tasks.pop(channel_id))
        return True

    async def _show_for_a_while(self, channel: discord.PartialMessageable, text: str) -> None:
        try:
            message = await channel.send(text)
        except UNREACHABLE as error:
            log.info("a hint for the person who reacted could not be shown: %s", type(error).__name__)
            return
        self._undeleted[message.id] = channel.id
        await self._store()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._seconds):
                await self._stopping.wait()
        await self._delete(message.id, channel.id)

    async def _delete_all(self) -> None:
        for message_id, channel_id in list(self._undeleted.items()):
            await self._delete(message_id, channel_id)

    async def _delete(self, message_id: int, channel_id: int) -> None:
        try:
            with suppress(discord.NotFound, discord.Forbidden):  # gone, or out of reach for good
                await self._bot.http.delete_message(channel_id, message_id)
        except UNREACHABLE as error:
            log.info("a hint is deleted after the next start: %s", type(error).__name__)
            return
        self._undeleted.pop(message_id, None)
        await self._store()

    async def _store(self) -> None:
        while len(self._undeleted) > _MOST_STORED:
            del self._undeleted[min(self._undeleted)]
        try:
            await self._bot.services.values.set_value(_STORED, json.dumps(list(self._undeleted.items())))
        except BotError as error:
            log.info("a hint could not be recorded: %s", type(error).__name__)
