"""The ways to put something into Discord about a job: by its interaction's token, by the bot's own edit, or as a new
message.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, replace
from io import BytesIO
from typing import TYPE_CHECKING

import discord
from discord.http import handle_message_parameters
from discord.utils import MISSING
from discord.webhook.async_ import async_context

from bot.discord_io.attempts import MethodFailed, Next, connected, tried
from bot.discord_io.mapped_file import MappedFile, UploadedFile
from bot.discord_io.own_messages import OwnMessages
from bot.domain.errors import Undeliverable
from bot.domain.models import DEFAULT_UPLOAD_LIMIT, TOKEN_LIFE
from bot.images import inspection
from bot.text import results

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from discord.http import MultipartParameters

    from bot.discord_io.own_messages import Message
    from bot.domain.models import Job, Picture

_NO_MENTIONS = discord.AllowedMentions.none()


@dataclass(frozen=True, slots=True)
class Content:
    """What one message shows. Without a picture it shows no file either, unless it is only about the `progress`: an
    edit that arrives late must not take away what was delivered meanwhile.
    """

    text: str
    picture: Picture | None = None
    view: discord.ui.View | None = None
    progress: bool = False


class DeliveryMethods:
    """Each makes one try, and raises `MethodFailed`. Each builds its own `discord.File`, because a used one uploads
    nothing. `client` is the connection of the moment.
    """

    def __init__(self, *, client: Callable[[], discord.Client], clock: Callable[[], datetime]) -> None:
        self._current_client = client
        self._clock = clock
        self.messages = OwnMessages(client=lambda: self._client, clock=clock)

    @property
    def _client(self) -> discord.Client:
        return connected(self._current_client())

    def _webhook(self, job: Job) -> discord.Webhook:
        """What the interaction's token allows, for as long as it works."""
        if not job.requester.token or self._clock() > job.requester.asked_at + TOKEN_LIFE:
            raise MethodFailed(Next.TRY_NEXT, "token: expired")
        client = self._client
        return discord.Webhook.partial(client.application_id or 0, job.requester.token, client=client)

    async def follow_up(self, job: Job, content: Content) -> None:
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
            await tried("follow-up", call)

    async def take_back(self, job: Job) -> None:
        webhook = self._webhook(job)
        call = async_context.get().delete_original_interaction_response(
            webhook.id, job.requester.token, session=webhook.session
        )
        await tried("take back", call)

    async def by_token(self, job: Job, content: Content) -> Message:
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
            return await tried("token", call)

    async def by_bot(self, job: Job, content: Content) -> Message:
        message_id = job.message_id or await self.messages.reply(job)
        files = await self._files(job, content, limit=min(job.requester.upload_limit, DEFAULT_UPLOAD_LIMIT))
        with _parameters_of_edit(content, files) as parameters:
            call = self._client.http.edit_message(job.requester.channel_id, message_id, params=parameters)
            return await tried("edit", call)

    async def as_new_message(self, job: Job, content: Content) -> Message:
        return await self._post("message", job.requester.channel_id, job, content)

    async def by_direct_message(self, job: Job, content: Content) -> Message:
        """Without buttons: a direct message belongs to no server, so they would bypass the server's limits."""
        channel = await tried("dm", self._client.http.start_private_message(job.requester.user_id))
        return await self._post("dm", int(channel["id"]), job, replace(content, view=None))

    async def _post(self, name: str, channel_id: int, job: Job, content: Content) -> Message:
        if content.picture is not None and (posted := await self.messages.result(job, channel_id)) is not None:
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
            return await tried(name, self._client.http.send_message(channel_id, params=parameters))

    async def attachment(self, job: Job, picture: Picture, limit: int) -> discord.File:
        """The picture as a file of at most `limit` bytes, for one attempt; raises `Undeliverable`."""
        fitting: Picture | None = picture
        if picture.size > limit:
            fitting = await asyncio.to_thread(inspection.shrink, picture, limit=limit)
        if fitting is None:
            raise Undeliverable(f"cannot be made smaller than {limit} bytes")
        return await asyncio.to_thread(_file, job, fitting)

    async def _files(self, job: Job, content: Content, *, limit: int) -> Sequence[discord.File]:
        if content.picture is None:
            return []
        try:
            return [await self.attachment(job, content.picture, limit)]
        except Undeliverable as failure:
            raise MethodFailed(Next.TRY_NEXT, failure.observed) from None

    async def tell(self, user_id: int, text: str) -> None:
        """Send a direct message that no job depends on."""
        channel = await tried("dm", self._client.http.start_private_message(user_id))
        with handle_message_parameters(
            content=text, allowed_mentions=_NO_MENTIONS, previous_allowed_mentions=None
        ) as parameters:
            await tried("dm", self._client.http.send_message(int(channel["id"]), params=parameters))

    async def add_reaction(self, channel_id: int, message_id: int, emoji: str) -> None:
        await tried("seed", self._client.http.add_reaction(channel_id, message_id, emoji))

    async def carries_picture(self, job: Job) -> bool:
        """Whether the message shows the job's picture already: an earlier process may have delivered it, been killed
        before it knew, and lost its copy.
        """
        for look in (self._original, self._own):
            with suppress(MethodFailed):
                return bool((await look(job))["attachments"])
        return False

    async def _original(self, job: Job) -> Message:
        webhook = self._webhook(job)
        call = async_context.get().get_original_interaction_response(
            webhook.id, job.requester.token, session=webhook.session
        )
        return await tried("look", call)

    async def _own(self, job: Job) -> Message:
        if job.message_id is None or job.requester.private:
            raise MethodFailed(Next.TRY_NEXT, "look: no message known")
        return await tried("look", self._client.http.get_message(job.requester.channel_id, job.message_id))


def _parameters_of_edit(content: Content, files: Sequence[discord.File]) -> MultipartParameters:
    return handle_message_parameters(
        content=content.text,
        attachments=MISSING if content.progress else files,
        view=content.view,
        allowed_mentions=_NO_MENTIONS,
        previous_allowed_mentions=None,
    )


def _file(job: Job, picture: Picture) -> discord.File:
    source = MappedFile(picture.path) if picture.content is None else BytesIO(picture.content)
    name, hidden = results.filename(job, picture.suffix), job.requester.spoiler
    return UploadedFile(source, name, description=results.alt(job), spoiler=hidden)
