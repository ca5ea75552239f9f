"""Reactions on results: one makes another, one sends a copy, one takes the result away. Raw events only, so that the
age of a message and a restart make no difference.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from io import BytesIO
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import aiohttp
import discord

from bot import buttons, words
from bot.errors import AlreadyTaken, BotError, Forbidden, PlaceClosed, Refused
from bot.model import AGAIN, Asker
from cogs.asking import UPLOAD_LIMIT
from cogs.permissions import may_manage_messages

if TYPE_CHECKING:
    from collections.abc import Hashable
    from datetime import datetime

    from bot.client import Client
    from bot.model import Job

    Event = discord.RawReactionActionEvent

log = logging.getLogger(__name__)

COPY, DELETE = "✉", "❌"
_AT_ONCE = 3  # pictures made at the same time from one result by reactions: each is a message in the channel
_QUIET = timedelta(minutes=1)  # the same thing is not said to the same person again
_LINE_SECONDS = 15.0  # how long a line in the channel stays
_UNREACHABLE = (discord.DiscordException, aiohttp.ClientError, OSError)


async def setup(bot: Client) -> None:
    reactions = Reactions(bot)
    bot.add_listener(reactions.on_add, "on_raw_reaction_add")


class Reactions:
    """Knows nothing but what it has just done, to say nothing twice."""

    def __init__(self, bot: Client) -> None:
        self._bot = bot
        self._services = bot.services
        self._locks: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()
        self._recent: dict[Hashable, datetime] = {}
        self._acts = {AGAIN: self._again, COPY: self._copy, DELETE: self._delete}

    async def on_add(self, event: Event) -> None:
        act = self._acts.get(str(event.emoji).replace("\ufe0f", ""))
        own = self._bot.user.id if self._bot.user is not None else 0
        if act is None or event.guild_id is None or event.user_id == own:
            return
        try:
            job = await self._services.results.of_message(event.message_id)
            if job is not None and not await self._is_bot(event):
                await act(event, job)
        except AlreadyTaken:
            return
        except Refused as refused:
            self._services.refused(type(refused).__name__)
            await self._say(event, words.refusal(refused, now=self._services.clock()))
        except (BotError, *_UNREACHABLE) as error:
            log.warning("a reaction could not be followed: %s", type(error).__name__)
        except Exception:
            log.exception("a reaction met an unforeseen fault")

    async def _is_bot(self, event: Event) -> bool:
        """Discord sends the member along; discord.py drops it for a server it has not seen yet."""
        if event.member is not None:
            return event.member.bot
        member = await self._bot.http.get_member(event.guild_id or 0, event.user_id)
        return bool(member["user"].get("bot"))

    # --- another --------------------------------------------------------------------------------------------------

    async def _again(self, event: Event, job: Job) -> None:
        asker = Asker(
            user_id=event.user_id,
            guild_id=event.guild_id,
            channel_id=event.channel_id,
            interaction_id=None,
            token="",
            asked_at=self._services.clock(),
            upload_limit=UPLOAD_LIMIT,
            reacted_to=event.message_id,
        )

        async def answer(made: Job, text: str, cancellable: bool) -> int:  # noqa: FBT001 - the use case calls it
            return await self._reply(event, made, text, cancellable=cancellable)

        lock = self._locks.setdefault(event.message_id, asyncio.Lock())
        async with lock:  # one after the other, or none would see how many there are
            if await self._services.results.crowd(event.message_id) >= _AT_ONCE:
                raise Forbidden("crowded")
            await self._services.thumbnails.accept(job.request, asker, answer, parent=job)

    async def _reply(self, event: Event, job: Job, text: str, *, cancellable: bool) -> int:
        channel = self._bot.get_partial_messageable(event.channel_id, guild_id=event.guild_id)
        original = channel.get_partial_message(event.message_id)
        try:
            message = await channel.send(
                text,
                reference=original.to_reference(fail_if_not_exists=False),
                mention_author=False,
                view=buttons.view(job, buttons.OF_WAITING if cancellable else ()),
                nonce=job.id,
            )
        except (discord.Forbidden, discord.NotFound):
            raise PlaceClosed from None
        return message.id

    # --- a copy ---------------------------------------------------------------------------------------------------

    async def _copy(self, event: Event, job: Job) -> None:
        if self._said_lately((event.message_id, event.user_id)):
            return
        channel = self._bot.get_partial_messageable(event.channel_id, guild_id=event.guild_id)
        message = await channel.get_partial_message(event.message_id).fetch()
        if not message.attachments:
            return
        shown = message.attachments[0]
        content = await self._services.fetched(shown.url)
        file = discord.File(BytesIO(content), shown.filename, description=words.alt(job))
        try:
            direct = await self._bot.create_dm(discord.Object(event.user_id))
            await direct.send(words.copy_of(job), file=file)
        except discord.Forbidden:
            await self._line(event, words.DIRECT_CLOSED)

    # --- away -----------------------------------------------------------------------------------------------------

    async def _delete(self, event: Event, job: Job) -> None:
        moderates = event.user_id != job.asker.user_id and await may_manage_messages(self._bot, event)

        async def remove() -> None:
            await self._bot.http.delete_message(event.channel_id, event.message_id)

        try:
            await self._services.results.delete(job, event.user_id, remove, moderates=moderates)
        except Forbidden:
            return  # an opinion, not a request

    # --- telling the person ---------------------------------------------------------------------------------------

    async def _say(self, event: Event, text: str) -> None:
        """Tell whoever reacted, and nobody else if that can be."""
        if self._said_lately((event.user_id, text.partition("<")[0])):
            return
        try:
            direct = await self._bot.create_dm(discord.Object(event.user_id))
            await direct.send(text)
        except discord.Forbidden:
            await self._line(event, text)
        except _UNREACHABLE as error:
            log.info("a reaction's refusal could not be told: %s", type(error).__name__)

    async def _line(self, event: Event, text: str) -> None:
        """One short-lived line, and no second one beside it."""
        if self._said_lately(event.channel_id):
            return
        channel = self._bot.get_partial_messageable(event.channel_id, guild_id=event.guild_id)
        try:
            await channel.send(f"<@{event.user_id}> {text}", delete_after=_LINE_SECONDS)
        except _UNREACHABLE as error:
            log.info("a reaction's refusal could not be told: %s", type(error).__name__)

    def _said_lately(self, what: Hashable) -> bool:
        now = self._services.clock()
        self._recent = {known: at for known, at in self._recent.items() if at > now - _QUIET}
        if what in self._recent:
            return True
        self._recent[what] = now
        return False
