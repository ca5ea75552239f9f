"""Puts results and endings into Discord: edit by the interaction's token, edit by the bot, a new message."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from enum import Enum, auto
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, TypeVar

import aiohttp
import discord
from discord.http import handle_message_parameters
from discord.webhook.async_ import async_context

from bot.discord_io import buttons
from bot.domain.errors import DeliveryDelayed, MessageDeleted, NotStarted, Undeliverable
from bot.images import inspection
from bot.text import words

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from datetime import datetime
    from typing import Any

    from bot.domain.models import Job, Picture

    Message = Mapping[str, Any]
    Text = Callable[..., str]
    Rung = Callable[[Job, str, Picture | None, discord.ui.View | None], Awaitable[Message]]

log = logging.getLogger(__name__)

T = TypeVar("T")

TOKEN_SECONDS = 14 * 60  # Discord takes an interaction's token for 15 minutes
DEFAULT_UPLOAD = 10 * 1024 * 1024  # bytes Discord takes from a bot anywhere
_SECONDS = 120.0  # for one try on one rung, discord.py's own retries included
_PROGRESS_SECONDS = 5.0
_PROGRESS_AT_ONCE = 4  # more would keep results waiting for a line of no weight

_RECENT = 50  # messages looked through for one of ours

_UNKNOWN_MESSAGE = 10008
_WORDS_REFUSED = (50035, 200000, 200001, 240000)  # invalid form, AutoMod, AutoMod on a name, harmful links
_NO_MENTIONS = discord.AllowedMentions.none()


class _Step(Enum):
    """What a rung's failure means for the ladder."""

    NEXT = auto()  # this way is closed
    LATER = auto()  # this way is open, but not now
    DELETED = auto()  # somebody took the message away


class _RungFailed(Exception):
    """One rung did not work. Never leaves this file."""

    def __init__(self, step: _Step, observed: str, *, for_its_words: bool = False) -> None:
        super().__init__(observed)
        self.step = step
        self.observed = observed
        self.for_its_words = for_its_words  # the text was refused, not the picture or the place


class Messenger:
    """The ladder. `client` is the connection of the moment; `seed` is the reaction put under public results, if any."""

    def __init__(
        self, *, client: Callable[[], discord.Client], clock: Callable[[], datetime], seed: str | None = None
    ) -> None:
        self._now_connected = client
        self._clock = clock
        self._seed = seed
        self._progress = asyncio.Semaphore(_PROGRESS_AT_ONCE)

    async def deliver(self, job: Job, picture: Picture) -> int:
        """Show `picture` on the job's message, or on a new one, or to the asker alone; returns the id of the message
        that carries it. What is private is never shown to anyone else.

        Raises `DeliveryDelayed` when the same may work later, `MessageDeleted`, `Undeliverable`.
        """
        rungs = (self._by_token,) if job.asker.private else (self._by_token, self._by_bot, self._anew)
        try:
            message = await self._climb(*(partial(self._described, rung, job, picture) for rung in rungs))
        except Undeliverable as failure:
            message = await self._to_asker(job, picture, failure)
        if not message.get("attachments"):
            raise DeliveryDelayed("Discord's answer carries no attachment")
        return int(message["id"])

    async def _described(self, rung: Rung, job: Job, picture: Picture, text: Text = words.result) -> Message:
        """A rung with the prompt below the picture; without it where Discord or a filter takes offence at the words."""
        view = None if rung == self._by_dm else buttons.of_result(job)
        try:
            return await rung(job, text(job), picture, view)
        except _RungFailed as failure:
            if not failure.for_its_words:
                raise
            return await rung(job, text(job, with_prompt=False), picture, view)

    async def _to_asker(self, job: Job, picture: Picture, failure: Undeliverable) -> Message:
        """The last rung: a direct message. What it cannot do either is the first failure, not its own."""
        try:
            return await self._described(self._by_dm, job, picture, words.result_elsewhere)
        except _RungFailed as closed:
            if closed.step is _Step.LATER:
                raise DeliveryDelayed(f"{failure.observed}; {closed.observed}") from None
            raise type(failure)(f"{failure.observed}; {closed.observed}") from None

    async def tell(self, job: Job, text: str) -> None:
        """Show `text` in place of whatever the job's message says; raises as `deliver` does."""
        view = buttons.view(job, buttons.OF_ENDED)
        rungs: tuple[Rung, ...] = (self._by_token,) if job.asker.private else (self._by_token, self._by_bot)
        with suppress(MessageDeleted):  # nobody is waiting there any more
            try:
                await self._climb(*(partial(rung, job, text, None, view) for rung in rungs))
            except MessageDeleted:
                raise
            except Undeliverable as failure:
                if not (job.asker.private or job.asker.reacted_to) or _never_answered(job):
                    raise
                await self._tell_asker(job, text, failure)

    async def _tell_asker(self, job: Job, text: str, failure: Undeliverable) -> None:
        try:
            await self._by_dm(job, text, None, None)
        except _RungFailed as closed:
            later = closed.step is _Step.LATER
            observed = f"{failure.observed}; {closed.observed}"
            raise (DeliveryDelayed(observed) if later else Undeliverable(observed)) from None

    async def invite(self, job: Job, message_id: int) -> None:
        """Put the reaction that makes another under a public result; it never matters."""
        if self._seed is None or job.asker.private or job.asker.guild_id is None:
            return
        with suppress(_RungFailed, TimeoutError):
            async with asyncio.timeout(_PROGRESS_SECONDS):
                await _tried("seed", self._client.http.add_reaction(job.asker.channel_id, message_id, self._seed))

    async def progress(self, job: Job, text: str, *, cancellable: bool = False) -> None:
        """Show `text` if that is quickly done; it never matters."""
        if self._progress.locked():
            return
        async with self._progress:
            with suppress(_RungFailed, TimeoutError):
                async with asyncio.timeout(_PROGRESS_SECONDS):
                    view = buttons.view(job, buttons.OF_WAITING) if cancellable else None
                    await (self._by_token if job.asker.token else self._by_bot)(job, text, None, view)

    async def _climb(self, *rungs: Callable[[], Awaitable[Message]]) -> Message:
        """The first rung that works. A rung that may work later is never followed by one that posts anew."""
        failures: list[_RungFailed] = []
        for number, rung in enumerate(rungs):
            edits_only = number < 2  # noqa: PLR2004 - by token, by bot
            if not edits_only and any(failure.step is _Step.LATER for failure in failures):
                break
            try:
                return await rung()
            except _RungFailed as failure:
                if failure.step is _Step.DELETED:
                    raise MessageDeleted(failure.observed) from failure
                failures.append(failure)
        observed = "; ".join(failure.observed for failure in failures)
        if any(failure.step is _Step.LATER for failure in failures):
            raise DeliveryDelayed(observed)
        raise Undeliverable(observed)

    @property
    def _client(self) -> discord.Client:
        client = self._now_connected()
        if client.is_closed() or client.application_id is None:  # between two connections, or not yet logged in
            raise _RungFailed(_Step.LATER, "no connection to Discord")
        return client

    # --- rungs: each builds its own discord.File, because a used one uploads nothing ---------------------------------

    async def _by_token(self, job: Job, text: str, picture: Picture | None, view: discord.ui.View | None) -> Message:
        age = (self._clock() - job.asker.asked_at).total_seconds()
        if not job.asker.token or age > TOKEN_SECONDS:
            raise _RungFailed(_Step.NEXT, "token: expired")
        client = self._client
        webhook = discord.Webhook.partial(client.application_id or 0, job.asker.token, client=client)
        files = await self._files(job, picture, limit=job.asker.upload_limit)
        with handle_message_parameters(
            content=text, attachments=files, view=view, allowed_mentions=_NO_MENTIONS, previous_allowed_mentions=None
        ) as parameters:
            # What Interaction.edit_original_response does, without an Interaction: one that outlives a restart.
            call = async_context.get().edit_original_interaction_response(
                webhook.id,
                job.asker.token,
                session=webhook.session,
                payload=parameters.payload,
                multipart=parameters.multipart,
                files=parameters.files,
            )
            return await _tried("token", call)

    async def _by_bot(self, job: Job, text: str, picture: Picture | None, view: discord.ui.View | None) -> Message:
        message_id = job.message_id or await self._find(job)
        files = await self._files(job, picture, limit=min(job.asker.upload_limit, DEFAULT_UPLOAD))
        with handle_message_parameters(
            content=text, attachments=files, view=view, allowed_mentions=_NO_MENTIONS, previous_allowed_mentions=None
        ) as parameters:
            call = self._client.http.edit_message(job.asker.channel_id, message_id, params=parameters)
            return await _tried("edit", call)

    async def _find(self, job: Job) -> int:
        """The job's message, by the id it shows: a kill between the answer and its commit leaves it unwritten."""
        recent = await _tried("find", self._client.http.logs_from(job.asker.channel_id, limit=_RECENT))
        own = self._client.user.id if self._client.user is not None else 0
        for message in recent:
            if int(message["author"]["id"]) == own and f"#{job.id}" in message["content"]:
                return int(message["id"])
        raise _RungFailed(_Step.NEXT, "edit: no message known")

    async def _anew(self, job: Job, text: str, picture: Picture | None, view: discord.ui.View | None) -> Message:
        return await self._post("message", job.asker.channel_id, job, text, picture, view)

    async def _by_dm(self, job: Job, text: str, picture: Picture | None, _: discord.ui.View | None) -> Message:
        """Without buttons: a direct message is no place of any server, whose limits they would pass by."""
        channel = await _tried("dm", self._client.http.start_private_message(job.asker.user_id))
        return await self._post("dm", int(channel["id"]), job, text, picture, None)

    async def _post(
        self, rung: str, channel_id: int, job: Job, text: str, picture: Picture | None, view: discord.ui.View | None
    ) -> Message:
        files = await self._files(job, picture, limit=min(job.asker.upload_limit, DEFAULT_UPLOAD))
        with handle_message_parameters(
            # The nonce makes Discord return the first message if this one is sent twice.
            content=text,
            files=files,
            view=view,
            allowed_mentions=_NO_MENTIONS,
            previous_allowed_mentions=None,
            nonce=job.id,
        ) as parameters:
            return await _tried(rung, self._client.http.send_message(channel_id, params=parameters))

    async def attachment(self, job: Job, picture: Picture, limit: int) -> discord.File:
        """The picture as a file of at most `limit` bytes, good for one attempt; raises `Undeliverable`."""
        fitting: Picture | None = picture
        if picture.size > limit:
            fitting = await asyncio.to_thread(inspection.shrink, picture, limit=limit)
        if fitting is None:
            raise Undeliverable(f"cannot be made smaller than {limit} bytes")
        return await asyncio.to_thread(_file, job, fitting)

    async def _files(self, job: Job, picture: Picture | None, *, limit: int) -> Sequence[discord.File]:
        if picture is None:
            return []
        try:
            return [await self.attachment(job, picture, limit)]
        except Undeliverable as failure:
            raise _RungFailed(_Step.NEXT, failure.observed) from None


def _never_answered(job: Job) -> bool:
    """Whether the answer itself failed: then whoever gave it tells its asker."""
    return job.message_id is None and job.reason == NotStarted.kind


def _file(job: Job, picture: Picture) -> discord.File:
    source = picture.path if picture.content is None else BytesIO(picture.content)
    return discord.File(source, words.filename(job, picture.suffix), description=words.alt(job))


async def _tried(rung: str, call: Awaitable[T]) -> T:
    """Await one call to Discord; raises `_RungFailed` saying what its failure means.

    discord.py lets resets and timeouts of aiohttp through: on Linux it retries neither.
    """
    try:
        async with asyncio.timeout(_SECONDS):
            return await call
    except discord.HTTPException as error:
        observed = f"{rung}: {error.status}/{error.code}"
        raise _RungFailed(_meaning(error), observed, for_its_words=error.code in _WORDS_REFUSED) from None
    except (aiohttp.ClientError, discord.DiscordException, OSError, RuntimeError) as error:  # a closed session's too
        raise _RungFailed(_Step.LATER, f"{rung}: {type(error).__name__}") from None


def _meaning(error: discord.HTTPException) -> _Step:
    if error.code == _UNKNOWN_MESSAGE:
        return _Step.DELETED
    if error.status >= 500 or error.status == 429:  # noqa: PLR2004 - HTTP's server errors and rate limit
        return _Step.LATER
    return _Step.NEXT
