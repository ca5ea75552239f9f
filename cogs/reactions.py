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
from typing import TYPE_CHECKING, NamedTuple
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
from cogs import responses
from cogs.error_handler import UNREACHABLE, explain
from cogs.permissions import may_manage_messages

if TYPE_CHECKING:
    from collections.abc import Hashable
    from datetime import datetime

    from bot.discord_io.client import Client
    from bot.domain.models import Job, Status

    Event = discord.RawReactionActionEvent

log = logging.getLogger(__name__)

COPY, DELETE = "✉", "❌"
_COPIES_AT_ONCE = 4  # each holds a whole picture in memory
_QUIET = timedelta(minutes=1)  # the same person is not told the same thing twice in this time
_ABOUT_THE_RESULT = (NotAllowed, ResultGone, SourceExpired)  # the others are the same for every result
_HINT_SECONDS = 15.0  # how long a hint stays in the channel
_REPLY_SECONDS = 15.0  # for the reply, which has a place in the queue meanwhile
_COPY_SECONDS = 120.0  # for one copy, its image included
_UNLOADING_SECONDS = 5.0  # for deleting the hints that are shown when the bot stops


async def setup(bot: Client) -> None:
    await bot.add_cog(Reactions(bot))


class _Told(NamedTuple):
    """Something that a person was told; about one message, or about all of them."""

    message_id: int | None
    user_id: int
    text: str


class Reactions(commands.Cog):
    """Remembers recent actions so none is repeated."""

    def __init__(
        self, bot: Client, *, hint_seconds: float = _HINT_SECONDS, reply_seconds: float = _REPLY_SECONDS
    ) -> None:
        self._bot = bot
        self._services = bot.services
        self._hint_seconds = hint_seconds
        self._reply_seconds = reply_seconds
        self._locks: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()
        self._copies = asyncio.Semaphore(_COPIES_AT_ONCE)
        self._recent: dict[Hashable, datetime] = {}
        self._hints: dict[int, asyncio.Task[None]] = {}  # by channel: the one that is shown there
        self._stopping = asyncio.Event()
        self._acts = {AGAIN: self._again, COPY: self._copy, DELETE: self._delete}

    async def cog_unload(self) -> None:
        """No hint stays behind when the bot stops."""
        self._stopping.set()
        if self._hints:
            await asyncio.wait(self._hints.values(), timeout=_UNLOADING_SECONDS)

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
                if await self._is_person(event):
                    await act(event, job)
        except Exception as error:  # noqa: BLE001 - the error handler answers everything
            locale, now = job.requester.locale, self._services.clock()
            text = explain(error, self._services, now=now, locale=locale, passing=(BotError, *UNREACHABLE))
            if text is not None and not self._recently_told(event, error, text):
                await self._tell(event, text)

    async def _is_person(self, event: Event) -> bool:
        """Discord sends the member along; discord.py drops it for a server it has not seen yet."""
        if event.member is not None:
            return not event.member.bot
        try:
            member = await self._bot.http.get_member(event.guild_id or 0, event.user_id)
        except discord.NotFound:
            return False  # has left
        return not member["user"].get("bot")

    # --- repeating ------------------------------------------------------------------------------------------------

    async def _again(self, event: Event, job: Job) -> None:
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
        )

        async def reply(repeated: Job, status: Status) -> int:
            await turn.aclose()  # the job is stored, so the next one counts it
            return await self._reply(event, repeated, status)

        async with AsyncExitStack() as turn:
            # One at a time, or none would count the others.
            await turn.enter_async_context(self._locks.setdefault(event.message_id, asyncio.Lock()))
            await self._services.results.check_reaction(event.message_id, event.user_id)
            await self._services.lifecycle.accept(job.request, requester, reply, parent=job)

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

    async def _copy(self, event: Event, job: Job) -> None:
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

    async def _delete(self, event: Event, job: Job) -> None:
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

    async def _tell(self, event: Event, text: str) -> None:
        """Tell the person who reacted, and nobody else if possible."""
        about = formatting.message_link(event.guild_id, event.channel_id, event.message_id)
        try:
            direct = await self._bot.create_dm(discord.Object(event.user_id))
            await direct.send(f"{text}\n-# {about}")
        except UNREACHABLE:
            self._show_hint(event, text)

    def _recently_told(self, event: Event, error: Exception, text: str) -> bool:
        """Whether the person has just been told the same, and it still holds. A failure is always news."""
        if not isinstance(error, RequestRejected):
            return False
        message_id = event.message_id if isinstance(error, _ABOUT_THE_RESULT) else None
        return self._recently_done(_Told(message_id, event.user_id, text.partition("<")[0]))

    def _forget_told(self, message_id: int) -> None:
        """Another job is in progress, so whoever is refused because of it has not been told about it."""
        self._recent = {
            known: at
            for known, at in self._recent.items()
            if not (isinstance(known, _Told) and known.message_id == message_id)
        }

    def _show_hint(self, event: Event, text: str) -> None:
        """Show one short-lived line, unless one is already shown."""
        if event.channel_id in self._hints or self._stopping.is_set():
            return
        task = asyncio.create_task(self._hint_for_a_while(event, f"<@{event.user_id}> {text}"), name="reaction-hint")
        self._hints[event.channel_id] = task
        task.add_done_callback(lambda _: self._hints.pop(event.channel_id))

    async def _hint_for_a_while(self, event: Event, text: str) -> None:
        try:
            message = await self._channel(event).send(text)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._hint_seconds):
                    await self._stopping.wait()
            await message.delete()
        except discord.NotFound:
            return  # deleted by somebody else
        except UNREACHABLE as error:
            log.info("a hint for the person who reacted could not be shown or deleted: %s", type(error).__name__)

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
    picture = inspection.inspect(Path(name), sha256="", content=content)
    smaller = await asyncio.to_thread(inspection.shrink, picture, limit=DEFAULT_UPLOAD_LIMIT)
    if smaller is None or smaller.content is None:
        raise JobFailed
    return str(Path(name).with_suffix(smaller.suffix)), smaller.content
