"""Finds the bot's own messages about a job, where a kill has left none on record."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from discord.utils import time_snowflake

from bot.discord_io.attempts import MethodFailed, Next, tried
from bot.domain.models import require
from bot.text import results

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from datetime import datetime
    from typing import Any

    import discord

    from bot.domain.models import Job

    Message = Mapping[str, Any]

_PAGE = 100  # messages of one look into a channel; Discord's maximum
_PAGES = 10
_SKEW = timedelta(minutes=1)  # between Discord's clock and ours
_ANSWERED = timedelta(minutes=15)  # a reply later than this after its request has no token any more


class OwnMessages:
    """Looks through channels; every method raises `MethodFailed`. So does `client`, if none can be used now."""

    def __init__(self, *, client: Callable[[], discord.Client], clock: Callable[[], datetime]) -> None:
        self._client = client
        self._clock = clock

    async def reply(self, job: Job) -> int:
        """The job's message, found by the job id in it: a kill between the reply and its commit leaves it unstored."""
        asked = job.requester.asked_at
        async for message in self._naming(job, job.requester.channel_id, asked, until=asked + _ANSWERED):
            return int(message["id"])
        raise MethodFailed(Next.TRY_NEXT, "edit: no message known")

    async def result(self, job: Job, channel_id: int) -> Message | None:
        """A message that shows the job's picture already: the program may have been killed before it knew, and the
        nonce of a message works for minutes only.
        """
        ready = require(job.generated_at)
        try:
            async for message in self._naming(job, channel_id, ready, until=self._clock()):
                if message["attachments"]:
                    return message
        except MethodFailed as failure:
            if failure.then is Next.LATER:
                raise
        return None  # or the bot may not read there: the nonce has to do

    async def shared(self, job: Job, channel_id: int) -> int | None:
        """The public message of a share that was interrupted."""
        since = require(job.sharing_at)
        async for message in self._naming(job, channel_id, since, until=since + _ANSWERED):
            if message["attachments"]:
                return int(message["id"])
        return None

    async def _naming(self, job: Job, channel_id: int, since: datetime, *, until: datetime) -> AsyncIterator[Message]:
        """The bot's own messages that name the job, in pages from `since` on."""
        client = self._client()
        own = 0 if client.user is None else client.user.id
        after, end = time_snowflake(since - _SKEW), time_snowflake(until + _SKEW)
        for _ in range(_PAGES):
            found = await tried("find", client.http.logs_from(channel_id, limit=_PAGE, after=after))
            for message in found:
                if int(message["author"]["id"]) == own and results.names(message["content"], job):
                    yield message
            after = max((int(message["id"]) for message in found), default=end)
            if len(found) < _PAGE or after >= end:
                return
