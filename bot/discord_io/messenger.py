"""Shows results and outcomes in Discord: by the interaction's token, by the bot's own edit, or by a new message."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import Enum, auto
from io import BytesIO
from typing import TYPE_CHECKING, TypeVar

import aiohttp
import discord
from discord.http import handle_message_parameters
from discord.utils import MISSING, time_snowflake
from discord.webhook.async_ import async_context

from bot.discord_io import buttons
from bot.discord_io.mapped_file import MappedFile, UploadedFile
from bot.discord_io.seed_queue import SeedQueue
from bot.domain import image_problems
from bot.domain.errors import DeliveryDelayed, MessageDeleted, NotStarted, Undeliverable
from bot.domain.models import DEFAULT_UPLOAD_LIMIT, TOKEN_LIFE, Downloading, require
from bot.images import inspection
from bot.text import failures, results

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
    from datetime import datetime
    from typing import Any

    from discord.http import MultipartParameters

    from bot.domain.models import Job, Picture, Status

    Message = Mapping[str, Any]
    _Method = Callable[[Job, "_Content"], Awaitable[Message]]

log = logging.getLogger(__name__)

T = TypeVar("T")

_SECONDS = 120.0  # for one try of one method, discord.py's own retries included
_PROGRESS_SECONDS = 10.0  # for one edit that shows progress, and so the longest that a result waits for one
_PROGRESS_AT_ONCE = 4  # more would keep results waiting for a line that does not matter

_PAGE = 100  # messages of one look into a channel; Discord's maximum
_PAGES = 10
_SKEW = timedelta(minutes=1)  # between Discord's clock and ours
_ANSWERED = timedelta(minutes=15)  # a reply later than this after its request has no token any more

_UNKNOWN_MESSAGE = 10008
_TEXT_REFUSED = (50035, 200000, 200001, 240000)  # invalid form, AutoMod, AutoMod on a name, harmful links
_NO_MENTIONS = discord.AllowedMentions.none()


class _Next(Enum):
    """What the failure of a delivery method means for the others."""

    TRY_NEXT = auto()  # this method will not work
    LATER = auto()  # this method works, but not now
    DELETED = auto()  # somebody deleted the message


class _MethodFailed(Exception):
    """One delivery method did not work. Never leaves this file."""

    def __init__(self, then: _Next, observed: str, *, for_its_text: bool = False) -> None:
        super().__init__(observed)
        self.then = then
        self.observed = observed
        self.for_its_text = for_its_text  # the text was refused, not the picture or the channel


@dataclass(frozen=True, slots=True)
class _Content:
    """What one message shows. Without a picture it shows no file either, unless it is only about the `progress`: an
    edit that arrives late must not take away what was delivered meanwhile.
    """

    text: str
    picture: Picture | None = None
    view: discord.ui.View | None = None
    progress: bool = False


class Messenger:
    """Shows states and pictures, by the first delivery method that works. `client` is the connection of the moment;
    `seed` is the reaction added under public results, if any.
    """

    def __init__(
        self, *, client: Callable[[], discord.Client], clock: Callable[[], datetime], seed: str | None = None
    ) -> None:
        self._current_client = client
        self._clock = clock
        self._seed = seed
        self._seeds = SeedQueue(self._add_seed, clock=clock)
        self._progress = asyncio.Semaphore(_PROGRESS_AT_ONCE)
        self._progress_edits: dict[str, asyncio.Task[None]] = {}  # in flight, by job

    async def deliver(self, job: Job, picture: Picture) -> int:
        """Show `picture` on the job's message, else in a new one, else to the requester alone. Returns the id of the
        message that carries it. A private result is never shown to anyone else.

        Raises `DeliveryDelayed` if the same may work later, `MessageDeleted`, `Undeliverable`.
        """
        await self._progress_shown(job)
        new = () if job.requester.private else (self._as_new_message,)
        try:
            message = await self._try_each(job, picture, edits=self._edits(job), new=new)
        except Undeliverable as failure:
            message = await self._to_requester(job, picture, failure)
        return _carrier(message)

    async def hand_over(self, job: Job, picture: Picture) -> int:
        """Show a kept picture to its requester alone, in the answer to the command that `job.claim` names; raises as
        `deliver` does.
        """
        claim = require(job.claim)
        requester = replace(
            job.requester, token=claim.token, asked_at=claim.at, upload_limit=claim.upload_limit, private=True
        )
        there = replace(job, requester=requester)
        return _carrier(await self._try_each(there, picture, edits=(self._by_token,)))

    async def notify(self, job: Job) -> None:
        """Show how a job without a picture to show ended, in place of its message, else to its requester alone; raises
        as `deliver` does. What is wrong with an image is told in private first, and the message taken back: others
        need not see it. A program that is killed in between may say it twice.
        """
        await self._progress_shown(job)
        if image_problems.from_reason(job.reason) is not None and await self._told_in_private(job):
            return
        try:
            await self._try_each(job, None, edits=self._edits(job))
        except MessageDeleted:
            return  # nobody is waiting there any more
        except Undeliverable as failure:
            if _never_answered(job):
                raise
            await self._to_requester(job, None, failure)

    async def _told_in_private(self, job: Job) -> bool:
        """Tell the requester alone, and take the message back; False if the message has to say it."""
        if job.requester.private:
            return False
        try:
            view = buttons.view(job, buttons.OF_TOO_LARGE) if image_problems.can_shrink(job.reason) else None
            await self._follow_up(job, _Content(failures.failure(job), view=view))
            await self._take_back(job)
        except _MethodFailed as failure:
            return failure.then is _Next.DELETED  # somebody else has taken it away
        return True

    def _edits(self, job: Job) -> Sequence[_Method]:
        """The methods that change the message in place; only the token can change a private one."""
        return (self._by_token,) if job.requester.private else (self._by_token, self._by_bot)

    async def _try_each(
        self, job: Job, picture: Picture | None, *, edits: Sequence[_Method], new: Sequence[_Method] = ()
    ) -> Message:
        """Use the first method that works. One that may work later is never followed by one that posts anew."""
        failed: list[_MethodFailed] = []
        for method in (*edits, *new):
            if method in new and _later(failed):
                break
            try:
                return await self._show(method, job, picture)
            except _MethodFailed as failure:
                if failure.then is _Next.DELETED:
                    raise MessageDeleted(failure.observed) from failure
                failed.append(failure)
        observed = "; ".join(failure.observed for failure in failed)
        raise (DeliveryDelayed if _later(failed) else Undeliverable)(observed)

    async def _show(self, method: _Method, job: Job, picture: Picture | None) -> Message:
        """One method with the prompt below the picture; without it if Discord or a filter refuses the text."""
        direct = method == self._by_direct_message
        if picture is None:
            outcome = failures.outcome_by_direct_message if direct else failures.outcome
            return await method(job, _Content(outcome(job), view=buttons.of_ended(job)))
        view = buttons.of_result(job)
        text = results.result_by_direct_message if direct else results.result
        try:
            return await method(job, _Content(text(job), picture, view))
        except _MethodFailed as failure:
            if not failure.for_its_text:
                raise
            return await method(job, _Content(text(job, with_prompt=False), picture, view))

    async def _to_requester(self, job: Job, picture: Picture | None, failure: Undeliverable) -> Message:
        """The last method: a direct message. If that fails too, the first failure is what is raised."""
        try:
            return await self._show(self._by_direct_message, job, picture)
        except _MethodFailed as closed:
            observed = f"{failure.observed}; {closed.observed}"
            kind = DeliveryDelayed if closed.then is _Next.LATER else type(failure)
            raise kind(observed) from None

    async def tell(self, user_id: int, text: str) -> None:
        """Send a direct message that no job depends on; a failure does not matter."""
        with suppress(_MethodFailed):
            channel = await _tried("dm", self._client.http.start_private_message(user_id))
            with handle_message_parameters(
                content=text, allowed_mentions=_NO_MENTIONS, previous_allowed_mentions=None
            ) as parameters:
                await _tried("dm", self._client.http.send_message(int(channel["id"]), params=parameters))

    async def add_again_reaction(self, job: Job, message_id: int) -> None:
        """Add the reaction that generates another image under a public result, when Discord has time for it; a failure
        does not matter.
        """
        if self._seed is not None and not job.requester.private and job.requester.guild_id is not None:
            self._seeds.put(job.requester.channel_id, message_id)

    async def _add_seed(self, channel_id: int, message_id: int) -> bool:
        try:
            await _tried("seed", self._client.http.add_reaction(channel_id, message_id, require(self._seed)))
        except _MethodFailed as failure:
            return failure.then is not _Next.LATER
        return True

    async def close(self) -> None:
        """Give up what nobody waits for."""
        await self._seeds.close()

    async def show_progress(self, job: Job, status: Status) -> None:
        """Show how far a job is, if that is quickly done; a failure does not matter. A caller that is cancelled leaves
        the edit to its end: Discord may apply it all the same, so what comes next has to wait for it.
        """
        if self._progress.locked() and not isinstance(status, Downloading):  # that one is shown only once
            return
        await self._progress_shown(job)
        edit = asyncio.create_task(self._edit_progress(job, status), name=f"progress-{job.id}")
        self._progress_edits[job.id] = edit
        edit.add_done_callback(lambda _: self._progress_edits.pop(job.id, None))
        await asyncio.shield(edit)

    async def _edit_progress(self, job: Job, status: Status) -> None:
        content = _Content(results.status(job, status), view=buttons.of_status(job, status), progress=True)
        async with self._progress:
            with suppress(TimeoutError):
                async with asyncio.timeout(_PROGRESS_SECONDS):
                    if isinstance(status, Downloading) and await self._carries_picture(job):
                        return
                    for method in self._edits(job):
                        try:
                            await method(job, content)
                        except _MethodFailed as failure:
                            if failure.then is _Next.TRY_NEXT:
                                continue
                        return

    async def _carries_picture(self, job: Job) -> bool:
        """Whether the message shows the job's picture already: an earlier process may have delivered it, been killed
        before it knew, and lost its copy.
        """
        for look in (self._original, self._own):
            with suppress(_MethodFailed):
                return bool((await look(job))["attachments"])
        return False

    async def _original(self, job: Job) -> Message:
        webhook = self._webhook(job)
        call = async_context.get().get_original_interaction_response(
            webhook.id, job.requester.token, session=webhook.session
        )
        return await _tried("look", call)

    async def _own(self, job: Job) -> Message:
        if job.message_id is None or job.requester.private:
            raise _MethodFailed(_Next.TRY_NEXT, "look: no message known")
        return await _tried("look", self._client.http.get_message(job.requester.channel_id, job.message_id))

    async def _progress_shown(self, job: Job) -> None:
        """Wait until no edit of the job's progress is in flight."""
        edit = self._progress_edits.get(job.id)
        if edit is not None:
            await asyncio.wait([edit])

    @property
    def _client(self) -> discord.Client:
        client = self._current_client()
        if client.is_closed() or client.application_id is None:  # between two connections, or not yet logged in
            raise _MethodFailed(_Next.LATER, "no connection to Discord")
        return client

    # --- the methods: each builds its own discord.File, because a used one uploads nothing ----------------------------

    def _webhook(self, job: Job) -> discord.Webhook:
        """What the interaction's token allows, for as long as it works."""
        if not job.requester.token or self._clock() > job.requester.asked_at + TOKEN_LIFE:
            raise _MethodFailed(_Next.TRY_NEXT, "token: expired")
        client = self._client
        return discord.Webhook.partial(client.application_id or 0, job.requester.token, client=client)

    async def _follow_up(self, job: Job, content: _Content) -> None:
        """One more message, which only the requester sees."""
        webhook = self._webhook(job)
        with handle_message_parameters(
            content=content.text,
            view=content.view or MISSING,
            flags=discord.MessageFlags(ephemeral=True),
            allowed_mentions=_NO_MENTIONS,
            previous_allowed_mentions=None,
        ) as parameters:
            call = async_context.get().execute_webhook(
                webhook.id, job.requester.token, session=webhook.session, payload=parameters.payload, wait=True
            )
            await _tried("follow-up", call)

    async def _take_back(self, job: Job) -> None:
        webhook = self._webhook(job)
        call = async_context.get().delete_original_interaction_response(
            webhook.id, job.requester.token, session=webhook.session
        )
        await _tried("take back", call)

    async def _by_token(self, job: Job, content: _Content) -> Message:
        webhook = self._webhook(job)
        files = await self._files(job, content, limit=job.requester.upload_limit)
        with _parameters_of_edit(content, files) as parameters:
            # What Interaction.edit_original_response does, without an Interaction: one that outlives a restart.
            call = async_context.get().edit_original_interaction_response(
                webhook.id,
                job.requester.token,
                session=webhook.session,
                payload=parameters.payload,
                multipart=parameters.multipart,
                files=parameters.files,
            )
            return await _tried("token", call)

    async def _by_bot(self, job: Job, content: _Content) -> Message:
        message_id = job.message_id or await self._find_reply(job)
        files = await self._files(job, content, limit=min(job.requester.upload_limit, DEFAULT_UPLOAD_LIMIT))
        with _parameters_of_edit(content, files) as parameters:
            call = self._client.http.edit_message(job.requester.channel_id, message_id, params=parameters)
            return await _tried("edit", call)

    async def _find_reply(self, job: Job) -> int:
        """The job's message, found by the job id in it: a kill between the reply and its commit leaves it unstored."""
        asked = job.requester.asked_at
        async for message in self._own_messages(job, job.requester.channel_id, asked, until=asked + _ANSWERED):
            return int(message["id"])
        raise _MethodFailed(_Next.TRY_NEXT, "edit: no message known")

    async def _find_result(self, job: Job, channel_id: int) -> Message | None:
        """A message that shows the job's picture already: the program may have been killed before it knew, and the
        nonce of a message works for minutes only.
        """
        ready = require(job.generated_at)
        try:
            async for message in self._own_messages(job, channel_id, ready, until=self._clock()):
                if message["attachments"]:
                    return message
        except _MethodFailed as failure:
            if failure.then is _Next.LATER:
                raise
        return None  # or the bot may not read there: the nonce has to do

    async def find_shared(self, job: Job, channel_id: int) -> int | None:
        """The public message of a share that was interrupted; raises `DeliveryDelayed` if that cannot be known now."""
        since = require(job.sharing_at)
        try:
            async for message in self._own_messages(job, channel_id, since, until=since + _ANSWERED):
                if message["attachments"]:
                    return int(message["id"])
        except _MethodFailed as failure:
            raise DeliveryDelayed(failure.observed) from None
        return None

    async def _own_messages(
        self, job: Job, channel_id: int, since: datetime, *, until: datetime
    ) -> AsyncIterator[Message]:
        """The bot's own messages that name the job, in pages from `since` on."""
        own = 0 if self._client.user is None else self._client.user.id
        after, end = time_snowflake(since - _SKEW), time_snowflake(until + _SKEW)
        for _ in range(_PAGES):
            found = await _tried("find", self._client.http.logs_from(channel_id, limit=_PAGE, after=after))
            for message in found:
                if int(message["author"]["id"]) == own and results.names(message["content"], job):
                    yield message
            after = max((int(message["id"]) for message in found), default=end)
            if len(found) < _PAGE or after >= end:
                return

    async def _as_new_message(self, job: Job, content: _Content) -> Message:
        return await self._post("message", job.requester.channel_id, job, content)

    async def _by_direct_message(self, job: Job, content: _Content) -> Message:
        """Without buttons: a direct message belongs to no server, so they would bypass the server's limits."""
        channel = await _tried("dm", self._client.http.start_private_message(job.requester.user_id))
        return await self._post("dm", int(channel["id"]), job, replace(content, view=None))

    async def _post(self, name: str, channel_id: int, job: Job, content: _Content) -> Message:
        if content.picture is not None and (posted := await self._find_result(job, channel_id)) is not None:
            return posted
        files = await self._files(job, content, limit=min(job.requester.upload_limit, DEFAULT_UPLOAD_LIMIT))
        with handle_message_parameters(
            # The nonce makes Discord return the first message if this one is sent twice.
            content=content.text,
            files=files,
            view=content.view,
            allowed_mentions=_NO_MENTIONS,
            previous_allowed_mentions=None,
            nonce=job.id,
        ) as parameters:
            return await _tried(name, self._client.http.send_message(channel_id, params=parameters))

    async def attachment(self, job: Job, picture: Picture, limit: int) -> discord.File:
        """The picture as a file of at most `limit` bytes, for one attempt; raises `Undeliverable`."""
        fitting: Picture | None = picture
        if picture.size > limit:
            fitting = await asyncio.to_thread(inspection.shrink, picture, limit=limit)
        if fitting is None:
            raise Undeliverable(f"cannot be made smaller than {limit} bytes")
        return await asyncio.to_thread(_file, job, fitting)

    async def _files(self, job: Job, content: _Content, *, limit: int) -> Sequence[discord.File]:
        if content.picture is None:
            return []
        try:
            return [await self.attachment(job, content.picture, limit)]
        except Undeliverable as failure:
            raise _MethodFailed(_Next.TRY_NEXT, failure.observed) from None


def _parameters_of_edit(content: _Content, files: Sequence[discord.File]) -> MultipartParameters:
    return handle_message_parameters(
        content=content.text,
        attachments=MISSING if content.progress else files,
        view=content.view,
        allowed_mentions=_NO_MENTIONS,
        previous_allowed_mentions=None,
    )


def _carrier(message: Message) -> int:
    """The id of the message that carries the picture; Discord may take a message and drop its file."""
    if not message.get("attachments"):
        raise DeliveryDelayed("Discord's answer carries no attachment")
    return int(message["id"])


def _later(found: Sequence[_MethodFailed]) -> bool:
    return any(failure.then is _Next.LATER for failure in found)


def _never_answered(job: Job) -> bool:
    """Whether the reply itself failed: then the caller that sent it tells the requester."""
    return job.message_id is None and job.reason == NotStarted.kind


def _file(job: Job, picture: Picture) -> discord.File:
    source = MappedFile(picture.path) if picture.content is None else BytesIO(picture.content)
    name, hidden = results.filename(job, picture.suffix), job.requester.spoiler
    return UploadedFile(source, name, description=results.alt(job), spoiler=hidden)


async def _tried(method: str, call: Awaitable[T]) -> T:
    """Await one call to Discord; raises `_MethodFailed`, which says what its failure means.

    discord.py lets resets and timeouts of aiohttp through: on Linux it retries neither.
    """
    try:
        async with asyncio.timeout(_SECONDS):
            return await call
    except discord.HTTPException as error:
        observed = f"{method}: {error.status}/{error.code}"
        raise _MethodFailed(_meaning(error), observed, for_its_text=error.code in _TEXT_REFUSED) from None
    except (aiohttp.ClientError, discord.DiscordException, OSError, RuntimeError) as error:  # a closed session's too
        raise _MethodFailed(_Next.LATER, f"{method}: {type(error).__name__}") from None


def _meaning(error: discord.HTTPException) -> _Next:
    if error.code == _UNKNOWN_MESSAGE:
        return _Next.DELETED
    if error.status >= 500 or error.status == 429:  # noqa: PLR2004 - HTTP's server errors and rate limit
        return _Next.LATER
    return _Next.TRY_NEXT
