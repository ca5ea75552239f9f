"""Reactions on results: one makes another, one sends a copy, one takes the result away. Raw events only, so that the
age of a message and a restart make no difference.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakValueDictionary

import aiohttp
import discord
from discord.ext import commands

from bot.discord_io import buttons
from bot.domain.errors import AlreadyTaken, BotError, Failed, Forbidden, PlaceClosed, Refused, ResultGone
from bot.domain.models import AGAIN, Asker, State
from bot.images import inspection
from bot.text import words
from cogs.interactions import UPLOAD_LIMIT
from cogs.permissions import may_manage_messages

if TYPE_CHECKING:
    from collections.abc import Hashable
    from datetime import datetime

    from bot.discord_io.client import Client
    from bot.domain.models import Job

    Event = discord.RawReactionActionEvent

log = logging.getLogger(__name__)

COPY, DELETE = "✉", "❌"
_AT_ONCE = 3  # messages in the channel that reactions to one result may cause at the same time, and in a minute
_COPIES_AT_ONCE = 4  # each holds a whole picture in memory
_QUIET = timedelta(minutes=1)  # the same thing is not said to the same person again
_LINE_SECONDS = 15.0  # how long a line in the channel stays
_UNLOADING_SECONDS = 5.0  # for taking away the lines that stand when the bot stops
# discord.py lets resets and timeouts of aiohttp through, and a closed session is a RuntimeError.
_UNREACHABLE = (discord.DiscordException, aiohttp.ClientError, OSError, RuntimeError)


async def setup(bot: Client) -> None:
    await bot.add_cog(Reactions(bot))


class _Made(NamedTuple):
    """A picture that a reaction has asked for."""

    message_id: int
    user_id: int
    job_id: str
    at: datetime


class Reactions(commands.Cog):
    """Knows nothing but what it has just done, to do and to say nothing twice."""

    def __init__(self, bot: Client, *, line_seconds: float = _LINE_SECONDS) -> None:
        self._bot = bot
        self._services = bot.services
        self._line_seconds = line_seconds
        self._locks: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()
        self._copies = asyncio.Semaphore(_COPIES_AT_ONCE)
        self._made: list[_Made] = []
        self._recent: dict[Hashable, datetime] = {}
        self._lines: dict[int, asyncio.Task[None]] = {}  # by channel: the one that stands there
        self._stopping = asyncio.Event()
        self._acts = {AGAIN: self._again, COPY: self._copy, DELETE: self._delete}

    async def cog_unload(self) -> None:
        """No line stays behind when the bot stops."""
        self._stopping.set()
        if self._lines:
            await asyncio.wait(self._lines.values(), timeout=_UNLOADING_SECONDS)

    @commands.Cog.listener("on_raw_reaction_add")
    async def on_add(self, event: Event) -> None:
        act = self._acts.get(str(event.emoji).replace("\ufe0f", ""))
        own = self._bot.user.id if self._bot.user is not None else 0
        if act is None or event.guild_id is None or event.user_id == own:
            return
        try:
            job = await self._services.results.of_message(event.message_id)
        except BotError as error:  # most messages are no results: nobody is told
            log.warning("a reaction could not be looked up: %s", type(error).__name__)
            return
        if job is None:
            return
        try:
            if await self._is_person(event):
                await act(event, job)
        except AlreadyTaken:
            return
        except Refused as refused:
            self._services.refused(type(refused).__name__)
            await self._say(event, words.refusal(refused, now=self._services.clock()))
        except (BotError, *_UNREACHABLE) as error:
            log.warning("a reaction could not be followed: %s", type(error).__name__)
            await self._say(event, f"{words.FAILURES[Failed.kind]} {words.FREE}")
        except Exception:
            log.exception("a reaction met an unforeseen fault")
            await self._say(event, words.UNFORESEEN)

    async def _is_person(self, event: Event) -> bool:
        """Discord sends the member along; discord.py drops it for a server it has not seen yet."""
        if event.member is not None:
            return not event.member.bot
        try:
            member = await self._bot.http.get_member(event.guild_id or 0, event.user_id)
        except discord.NotFound:
            return False  # has left
        return not member["user"].get("bot")

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
            await self._make_room(event)
            await self._services.thumbnails.accept(job.request, asker, answer, parent=job)

    async def _make_room(self, event: Event) -> None:
        """Raises `Forbidden` when there are enough, counting those that ended within the minute: where the provider
        refuses at once, each of fifty people would get a message that says so. `AlreadyTaken` for one of the makers.
        """
        results, now = self._services.results, self._services.clock()
        self._made = [made for made in self._made if made.at > now - _QUIET]
        of_this = [made for made in self._made if made.message_id == event.message_id]
        if max(len(of_this), await results.crowd(event.message_id)) < _AT_ONCE:
            return
        for made in of_this:
            if (
                made.user_id == event.user_id
                and (await results.job(made.job_id, event.user_id)).state is not State.RELEASED
            ):
                raise AlreadyTaken
        raise Forbidden("crowded")

    async def _reply(self, event: Event, job: Job, text: str, *, cancellable: bool) -> int:
        original = self._channel(event).get_partial_message(event.message_id)
        try:
            message = await self._channel(event).send(
                text,
                reference=original.to_reference(fail_if_not_exists=False),
                mention_author=False,
                view=buttons.view(job, buttons.OF_WAITING if cancellable else ()),
                nonce=f"again-{job.id}",  # the bare id is for the picture: Discord would show this one in its place
            )
        except (discord.Forbidden, discord.NotFound):
            raise PlaceClosed from None
        self._made.append(_Made(event.message_id, event.user_id, job.id, self._services.clock()))
        return message.id

    # --- a copy ---------------------------------------------------------------------------------------------------

    async def _copy(self, event: Event, job: Job) -> None:
        wanted = (COPY, event.message_id, event.user_id)
        if self._lately(wanted):
            return
        try:
            async with self._copies:
                await self._send_copy(event, job)
        except BaseException:
            self._recent.pop(wanted, None)  # nothing was sent: it may be asked for again at once
            raise

    async def _send_copy(self, event: Event, job: Job) -> None:
        message = await self._channel(event).get_partial_message(event.message_id).fetch()
        if not message.attachments:
            raise ResultGone
        shown = message.attachments[0]
        name, content = await _fitting(shown.filename, await self._services.fetched(shown.url))
        file = discord.File(BytesIO(content), name, description=words.alt(job))
        try:
            direct = await self._bot.create_dm(discord.Object(event.user_id))
            await direct.send(words.copy_of(job), file=file)
        except discord.Forbidden:
            self._line(event, words.DIRECT_CLOSED)

    # --- away -----------------------------------------------------------------------------------------------------

    async def _delete(self, event: Event, job: Job) -> None:
        moderates = False
        if event.user_id != job.asker.user_id:
            if self._lately((DELETE, event.message_id, event.user_id)):
                return  # Discord was asked already
            moderates = await may_manage_messages(self._bot, event)

        async def remove() -> None:
            with suppress(discord.NotFound):  # somebody else was quicker
                await self._bot.http.delete_message(event.channel_id, event.message_id)

        try:
            await self._services.results.delete(
                job, event.user_id, remove, message_id=event.message_id, moderates=moderates
            )
        except Forbidden:
            return  # an opinion, not a request

    # --- telling the person ---------------------------------------------------------------------------------------

    async def _say(self, event: Event, text: str) -> None:
        """Tell whoever reacted, and nobody else if that can be."""
        if self._lately((event.user_id, text.partition("<")[0])):
            return
        about = f"https://discord.com/channels/{event.guild_id}/{event.channel_id}/{event.message_id}"
        try:
            direct = await self._bot.create_dm(discord.Object(event.user_id))
            await direct.send(f"{text}\n-# {about}")
        except _UNREACHABLE:
            self._line(event, text)

    def _line(self, event: Event, text: str) -> None:
        """One short-lived line, and no second one beside it."""
        if event.channel_id in self._lines or self._stopping.is_set():
            return
        task = asyncio.create_task(self._show_for_a_while(event, f"<@{event.user_id}> {text}"), name="reaction-line")
        self._lines[event.channel_id] = task
        task.add_done_callback(lambda _: self._lines.pop(event.channel_id))

    async def _show_for_a_while(self, event: Event, text: str) -> None:
        try:
            message = await self._channel(event).send(text)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._line_seconds):
                    await self._stopping.wait()
            await message.delete()
        except discord.NotFound:
            return  # taken away by somebody else
        except _UNREACHABLE as error:
            log.info("a line for who reacted could not be shown or taken away: %s", type(error).__name__)

    def _channel(self, event: Event) -> discord.PartialMessageable:
        return self._bot.get_partial_messageable(event.channel_id, guild_id=event.guild_id)

    def _lately(self, what: Hashable) -> bool:
        """Whether it was done or said within the minute; from now on it was."""
        now = self._services.clock()
        self._recent = {known: at for known, at in self._recent.items() if at > now - _QUIET}
        if what in self._recent:
            return True
        self._recent[what] = now
        return False


async def _fitting(name: str, content: bytes) -> tuple[str, bytes]:
    """A picture as direct messages take it: a server may have raised its limit, they have not."""
    if len(content) <= UPLOAD_LIMIT:
        return name, content
    picture = inspection.inspect(Path(name), sha256="", content=content)
    smaller = await asyncio.to_thread(inspection.shrink, picture, limit=UPLOAD_LIMIT)
    if smaller is None or smaller.content is None:
        raise Failed
    return str(Path(name).with_suffix(smaller.suffix)), smaller.content
