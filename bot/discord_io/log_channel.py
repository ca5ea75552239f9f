"""Posts one line per ended job to the log channel of its server, in the background: never in the way of a result, and
given up when the bot stops.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextvars import Context
from datetime import timedelta
from typing import TYPE_CHECKING

import aiohttp
import discord
from discord.http import handle_message_parameters

from bot.domain.errors import BotError
from bot.text import job_log
from bot.text.formatting import CONTENT_LENGTH

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from bot.domain.models import Job
    from bot.domain.server_rules import ServerRules

log = logging.getLogger(__name__)

LIFE = timedelta(hours=1)  # a line that could not be posted for so long is left out
CAP = 500  # lines that wait in one server; beyond it the oldest are left out
_AT_ONCE = 4  # messages in all servers: the connections are for the results
_PAUSE_SECONDS = 5.0  # while Discord cannot be reached
_POST_SECONDS = 30.0
_CLOSING_SECONDS = 3.0  # for the lines of the last jobs
_SILENT = discord.MessageFlags(suppress_embeds=True, suppress_notifications=True)


class LogChannels:
    """`rules` are those of a server, `post` posts a text in a channel: it returns False if that may work later, and
    never raises.
    """

    def __init__(
        self,
        post: Callable[[int, str], Awaitable[bool]],
        *,
        rules: Callable[[int], Awaitable[ServerRules]],
        clock: Callable[[], datetime],
    ) -> None:
        self._post = post
        self._rules = rules
        self._clock = clock
        self._waiting: dict[int, deque[tuple[datetime, str]]] = {}  # lines by server, the oldest first
        self._workers: dict[int, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(_AT_ONCE)

    def ended(self, job: Job) -> None:
        """Post the line of a job soon, after those that have waited longer."""
        guild_id = job.requester.guild_id
        if guild_id is None:
            return
        self._waiting.setdefault(guild_id, deque(maxlen=CAP)).append((self._clock(), job_log.line(job)))
        if guild_id not in self._workers:
            # In a context of its own: it works for many jobs, so its log lines must not have the first one's id.
            worker = asyncio.create_task(self._work(guild_id), name=f"log-channel-{guild_id}", context=Context())
            self._workers[guild_id] = worker

    async def _work(self, guild_id: int) -> None:
        try:
            await self._post_all(guild_id, self._waiting[guild_id])
        finally:
            del self._waiting[guild_id], self._workers[guild_id]

    async def _post_all(self, guild_id: int, waiting: deque[tuple[datetime, str]]) -> None:
        while waiting:
            channel_id = await self._channel(guild_id)
            if channel_id is None:
                break
            taken = _taken(waiting, since=self._clock() - LIFE)
            if taken and not await self._posted(channel_id, taken):
                # At the front again; if others have come meanwhile and there is no room, the oldest are left out.
                later = list(waiting)
                waiting.clear()
                waiting.extend([*taken, *later])
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _posted(self, channel_id: int, lines: list[tuple[datetime, str]]) -> bool:
        async with self._slots:
            return await self._post(channel_id, "\n".join(line for _, line in lines))

    async def _channel(self, guild_id: int) -> int | None:
        try:
            return (await self._rules(guild_id)).log_channel
        except BotError as error:
            log.info("a log channel could not be looked up: %s", type(error).__name__)
            return None

    async def close(self) -> None:
        """Post what waits, if that is quickly done, and give up the rest: the next start does not know of it."""
        workers = list(self._workers.values())
        if workers:
            await asyncio.wait(workers, timeout=_CLOSING_SECONDS)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


def _taken(waiting: deque[tuple[datetime, str]], *, since: datetime) -> list[tuple[datetime, str]]:
    """Take the oldest lines off that fit into one message; what is older than `since` is dropped."""
    taken: list[tuple[datetime, str]] = []
    length = 0
    while waiting:
        at, line = waiting[0]
        if taken and length + len(line) + 1 > CONTENT_LENGTH:
            break
        waiting.popleft()
        if at >= since:
            taken.append((at, line))
            length += len(line) + 1
    return taken


async def post(client: discord.Client, channel_id: int, text: str) -> bool:
    """Post a text that mentions nobody and makes no noise; False if that may work later."""
    try:
        with handle_message_parameters(
            content=text,
            flags=_SILENT,
            allowed_mentions=discord.AllowedMentions.none(),
            previous_allowed_mentions=None,
        ) as parameters:
            async with asyncio.timeout(_POST_SECONDS):
                await client.http.send_message(channel_id, params=parameters)
    except discord.HTTPException as error:
        log.info("a line in a log channel: %d/%d", error.status, error.code)
        return error.status < 500 and error.status != 429  # noqa: PLR2004 - HTTP's server errors and rate limit
    except (aiohttp.ClientError, discord.DiscordException, OSError, RuntimeError) as error:  # a closed session's too
        log.info("a line in a log channel: %s", type(error).__name__)
        return False
    return True
