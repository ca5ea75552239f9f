"""One of several connections to Discord's gateway. It is kept, and resumes its session whenever it has one."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import aiohttp
import discord
from discord.gateway import DiscordWebSocket, ReconnectWebSocket

from bot.discord_io.client import close_websocket
from bot.domain.errors import IdentifyLimitReached

if TYPE_CHECKING:
    from collections.abc import Callable

    from bot.discord_io.identify_limit import IdentifyLimit

log = logging.getLogger(__name__)

_CONNECT_SECONDS = 60.0  # for the connection, Discord's hello, and the IDENTIFY or RESUME
_STABLE_SECONDS = 60.0  # a connection that lasted this long was a good one
_LONGEST_PAUSE = 300.0  # seconds between two tries
_TRIES_THERE = 5  # at the address that Discord has named for resuming, which may be gone; then at the usual one
# What passes by itself, as in discord.py's own clients: the network is down, or Discord is out of order.
_PASSES = (OSError, TimeoutError, aiohttp.ClientError, discord.HTTPException, discord.GatewayNotFound)

_opened: ContextVar[list[DiscordWebSocket]] = ContextVar("opened")  # by the shard of this task, for one connection


def pause_after(tries: int) -> float:
    """Seconds before the next try, after so many in a row. Discord asks for at least one after a lost session."""
    return min(_LONGEST_PAUSE, 2.0**tries) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter


class _Websocket(DiscordWebSocket):
    """Known from its first moment on, and not only when Discord has accepted it."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, *, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(socket, loop=loop)
        _opened.get().append(self)


class Shard:
    """The connection of shard `number`. `websocket` is its newest one, and None before the first; `is_waiting` says
    whether it waits for its turn among the shards.
    """

    def __init__(
        self,
        client: discord.Client,
        number: int,
        limit: IdentifyLimit,
        *,
        pause: Callable[[int], float] = pause_after,
    ) -> None:
        self.number = number
        self.websocket: DiscordWebSocket | None = None
        self.is_waiting = True
        self._client = client
        self._limit = limit
        self._pause = pause
        self._tries = 0  # in a row

    async def keep(self) -> None:
        """Connect, and connect again whenever the connection is lost. Raises what only a fresh client can mend:
        `ConnectionClosed`, and errors of discord.py.
        """
        while True:
            began = math.inf  # not yet: however long it waits for its turn, that is no good connection
            try:
                await self._open()
                began = asyncio.get_running_loop().time()
                await self._read()
            except ReconnectWebSocket:  # the connection was lost, or Discord asks for another one
                if self._count(began) > 1 or self._session is None:
                    await asyncio.sleep(self._pause(self._tries))
            except IdentifyLimitReached as reached:
                await asyncio.sleep(reached.wait.total_seconds())
            except _PASSES:
                seconds = self._pause(self._count(began))
                # In discord.py's words, of which `bot.ops.reconnect_log` makes a few sentences for all shards.
                log.exception("Attempting a reconnect for shard ID %s in %.2fs", self.number, seconds)
                await asyncio.sleep(seconds)

    async def close(self) -> None:
        """Say goodbye to Discord."""
        await close_websocket(self.websocket)

    @property
    def _session(self) -> str | None:
        """What can be resumed: None before Discord has accepted the shard, and after it has forgotten it."""
        return None if self.websocket is None else self.websocket.session_id

    def _count(self, began: float) -> int:
        """How many tries in a row have ended soon, with this one."""
        lasted = asyncio.get_running_loop().time() - began > _STABLE_SECONDS
        self._tries = 1 if lasted else self._tries + 1
        return self._tries

    async def _open(self) -> None:
        """Resume the session, or identify in turn with the other shards."""
        if (last := self.websocket) is not None and last.session_id is not None:
            gateway = last.gateway if self._tries < _TRIES_THERE else None
            await self._connect(resume=True, gateway=gateway, session=last.session_id, sequence=last.sequence)
            return
        self.is_waiting = True
        try:
            async with self._limit.turn(self.number):
                self.is_waiting = False
                await self._limit.until_free()
                await self._connect()
        finally:
            self.is_waiting = False

    async def _connect(self, **session: Any) -> None:
        opened: list[DiscordWebSocket] = []
        _opened.set(opened)
        try:
            # Not `wait_for`: on Python 3.11, that forgets a cancellation which comes together with the connection.
            async with asyncio.timeout(_CONNECT_SECONDS):
                self.websocket = await _Websocket.from_client(self._client, shard_id=self.number, **session)
        except BaseException:
            for websocket in opened:  # or its thread would go on sending heartbeats
                await close_websocket(websocket)
            raise

    async def _read(self) -> None:
        """Handle what Discord sends, until the connection is lost."""
        while self.websocket is not None:
            await self.websocket.poll_event()
