"""Reactions on results: one generates another image, one sends a copy, one deletes the result. Only raw events are
used, so that neither the age of a message nor a restart makes a difference.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakValueDictionary

import discord
from discord.ext import commands

from bot.discord_io import buttons
from bot.domain.errors import (
    BotError,
    ChannelNotWritable,
    JobFailed,
    NotAllowed,
    RequestRejected,
    ResultGone,
    SourceExpired,
)
from bot.domain.models import AGAIN, DEFAULT_UPLOAD_LIMIT, Requester
from bot.images import inspection
from bot.text import formatting, results
from cogs import interactions, responses
from cogs.error_handler import UNREACHABLE, explain
from cogs.hints import Hints
from cogs.permissions import may_manage_messages

if TYPE_CHECKING:
    from collections.abc import Hashable
    from datetime import datetime

    from bot.discord_io.client import Client
    from bot.domain.models import Job, Picture, Status

    Event = discord.RawReactionActionEvent

log = logging.getLogger(__name__)

COPY, DELETE = "✉", "❌"
_COPIES_AT_ONCE = 4  # each holds a whole picture in memory
_QUIET = timedelta(minutes=1)  # the same person is not told the same thing twice in this time
_ABOUT_THE_RESULT = (NotAllowed, ResultGone, SourceExpired)  # the others are the same for every result
_HINT_SECONDS = 15.0  # how long a hint stays in the channel
_REPLY_SECONDS = 15.0  # for the reply, which has a place in the queue meanwhile
_COPY_SECONDS = 120.0  # for one copy, its image included


async def setup(bot: Client) -> None:
    await bot.add_cog(Reactions(bot))


class _Told(NamedTuple):
    """Something that a person was told; about one message, or about all of them."""

    message_id: int | None
    user_id: int
    text: str


class _Person(NamedTuple):
    """What limits and access depend on."""

    roles: frozenset[int]
    joined_at: datetime | None


class Reactions(commands.Cog):
    """Remembers recent actions so none is repeated."""

    def __init__(
        self, bot: Client, *, hint_seconds: float = _HINT_SECONDS, reply_seconds: float = _REPLY_SECONDS
    ) -> None:
        self._bot = bot
        self._services = bot.services
        self._reply_seconds = reply_seconds
        self._locks: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()
        self._copies = asyncio.Semaphore(_COPIES_AT_ONCE)
        self._recent: dict[Hashable, datetime] = {}
        self._hints = Hints(bot, seconds=hint_seconds)
        self._acts = {AGAIN: self._again, COPY: self._copy, DELETE: self._delete}

    async def cog_load(self) -> None:
        await self._hints.load()

    async def cog_unload(self) -> None:
        await self._hints.close()

    @commands.Cog.listener("on_raw_reaction_add")
    async def on_add(self, event: Event) -> None:
        act = self._acts.get(str(event.emoji).replace("\ufe0f", ""))
        own = self._bot.user.id if self._bot.user is not None else 0
        if act is None or event.guild_id is None or event.user_id == own:
            return
        try:
            job = await self._services.results.find_by_message(event.message_id)
        except BotError as error:  # most messages are not results: nobody is told
            log.warning("a reaction could not be looked up: %s", type(error).__name__)
            return
        if job is None:
            return
        try:
            with self._services.recovery.waited_for():
                person = await self._person(event)
                if person is not None:
                    await act(event, job, person)
        except Exception as error:  # noqa: BLE001 - the error handler answers everything
            locale, now = job.requester.locale, self._services.clock()
            text = explain(error, self._services, now=now, locale=locale, passing=(BotError, *UNREACHABLE))
            if text is not None:
                await self._answer(event, error, text)

    async def _person(self, event: Event) -> _Person | None:
        """Who reacted; None for a bot, and for somebody who has left. Discord sends the member along; discord.py drops
        it for a server it has not seen yet.
        """
        if event.member is not None:
            return None if event.member.bot else _Person(interactions.role_ids(event.member), event.member.joined_at)
        try:
            member = await self._bot.http.get_member(event.guild_id or 0, event.user_id)
        except discord.NotFound:
            return None
        if member["user"].get("bot"):
            return None
        return _Person(frozenset(map(int, member["roles"])), discord.utils.parse_time(member.get("joined_at")))

    # --- repeating ------------------------------------------------------------------------------------------------

    async def _again(self, event: Event, job: Job, person: _Person) -> None:
        requester = Requester(
            user_id=event.user_id,
            guild_id=event.guild_id,
            channel_id=event.channel_id,
            interaction_id=None,
            token="",
            asked_at=self._services.clock(),
            upload_limit=DEFAULT_UPLOAD_LIMIT,
            reacted_to=event.message_id,
            locale=job.requester.locale,
            roles=person.roles,
            joined_at=person.joined_at,
            parent_channel_id=await self._parent_channel(event),
        )

        async def reply(repeated: Job, status: Status) -> int:
            await turn.aclose()  # the job is stored, so the next one counts it
            return await self._reply(event, repeated, status)

        async with AsyncExitStack() as turn:
            # One at a time, or none would count the others.
            await turn.enter_async_context(self._locks.setdefault(event.message_id, asyncio.Lock()))
            await self._services.results.check_reaction(event.message_id, event.user_id)
            await self._services.lifecycle.accept(job.request, requester, reply, parent=job)

    async def _parent_channel(self, event: Event) -> int | None:
        """The channel of a thread, if it matters where results may go; a reaction does not say."""
        channels = (await self._services.policies.server_rules(event.guild_id)).channels
        if not channels or event.channel_id in channels:
            return None
        parent: Any = (await self._bot.http.get_channel(event.channel_id)).get("parent_id")
        return None if parent is None else int(parent)

    async def _reply(self, event: Event, job: Job, status: Status) -> int:
        original = self._channel(event).get_partial_message(event.message_id)
        send = partial(
            self._channel(event).send,
            results.status(job, status),
            reference=original.to_reference(fail_if_not_exists=False),
            mention_author=False,
            view=buttons.of_status(job, status),
            # Sent twice, it is posted once. The bare id is the nonce of the result, which Discord would return for it.
            nonce=f"again-{job.id}",
        )
        try:
            message = await responses.persistently(send, seconds=self._reply_seconds)
        except (discord.Forbidden, discord.NotFound):
            raise ChannelNotWritable from None
        self._services.results.record_reaction(event.message_id, job.id)
        self._forget_told(event.message_id)
        return message.id

    # --- a copy ---------------------------------------------------------------------------------------------------

    async def _copy(self, event: Event, job: Job, _: _Person) -> None:
        wanted = (COPY, event.message_id, event.user_id)
        if self._recently_done(wanted):
            return
        try:
            async with self._copies, asyncio.timeout(_COPY_SECONDS):
                await self._send_copy(event, job)
        except BaseException:
            self._recent.pop(wanted, None)  # nothing was sent: it may be requested again at once
            raise

    async def _send_copy(self, event: Event, job: Job) -> None:
        message = await self._channel(event).get_partial_message(event.message_id).fetch()
        if not message.attachments:
            raise ResultGone
        shown = message.attachments[0]
        name, content = await _fitting(shown.filename, await self._services.fetch_image(shown.url))
        file = discord.File(BytesIO(content), name, description=results.alt(job))
        try:
            direct = await self._bot.create_dm(discord.Object(event.user_id))
            await direct.send(results.copy(job), file=file)
        except discord.Forbidden:
            self._show_hint(event, results.direct_messages_closed(locale=job.requester.locale))

    # --- deleting -------------------------------------------------------------------------------------------------

    async def _delete(self, event: Event, job: Job, _: _Person) -> None:
        moderator = False
        if event.user_id != job.requester.user_id:
            if self._recently_done((DELETE, event.message_id, event.user_id)):
                return  # Discord has already been asked
            moderator = await may_manage_messages(self._bot, event)

        async def remove() -> None:
            with suppress(discord.NotFound):  # somebody else was faster
                await self._bot.http.delete_message(event.channel_id, event.message_id)

        try:
            await self._services.results.delete(
                job, event.user_id, remove, message_id=event.message_id, moderator=moderator
            )
        except NotAllowed:
            return  # an opinion, not a request

    # --- telling the person ---------------------------------------------------------------------------------------

    async def _answer(self, event: Event, error: Exception, text: str) -> None:
        """Tell the person why nothing follows, unless they have just been told and it still holds. A failure is always
        news.
        """
        message_id = event.message_id if isinstance(error, _ABOUT_THE_RESULT) else None
        told = _Told(message_id, event.user_id, text.partition("<")[0])
        if isinstance(error, RequestRejected) and self._recently_done(told):
            return
        if not await self._tell(event, text):
            self._recent.pop(told, None)

    async def _tell(self, event: Event, text: str) -> bool:
        """Tell the person who reacted, and nobody else if possible; False if there is no way at the moment."""
        about = formatting.message_link(event.guild_id, event.channel_id, event.message_id)
        try:
            direct = await self._bot.create_dm(discord.Object(event.user_id))
            await direct.send(f"{text}\n-# {about}")
        except UNREACHABLE:
            return self._show_hint(event, text)
        return True

    def _forget_told(self, message_id: int) -> None:
        """Another job is in progress, so whoever is refused because of it has not been told about it."""
        self._recent = {
            known: at
            for known, at in self._recent.items()
            if not (isinstance(known, _Told) and known.message_id == message_id)
        }

    def _show_hint(self, event: Event, text: str) -> bool:
        """Show one short-lived line in the channel; False if one is already shown there."""
        return self._hints.show(event.guild_id, event.channel_id, f"<@{event.user_id}> {text}")

    def _channel(self, event: Event) -> discord.PartialMessageable:
        return self._bot.get_partial_messageable(event.channel_id, guild_id=event.guild_id)

    def _recently_done(self, what: Hashable) -> bool:
        """Whether it was done or said within the last minute; from now on it was."""
        now = self._services.clock()
        self._recent = {known: at for known, at in self._recent.items() if at > now - _QUIET}
        if what in self._recent:
            return True
        self._recent[what] = now
        return False


async def _fitting(name: str, content: bytes) -> tuple[str, bytes]:
    """An image that fits into a direct message, whose limit is lower than that of some servers."""
    if len(content) <= DEFAULT_UPLOAD_LIMIT:
        return name, content
    smaller = await asyncio.to_thread(_shrunk, name, content)
    if smaller is None or smaller.content is None:
        raise JobFailed
    return str(Path(name).with_suffix(smaller.suffix)), smaller.content


def _shrunk(name: str, content: bytes) -> Picture | None:
    """Takes as long as the image is large, so it runs in a thread."""
    picture = inspection.inspect(Path(name), content=content)
    return inspection.shrink(picture, limit=DEFAULT_UPLOAD_LIMIT)
