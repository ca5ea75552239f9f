"""The client for many servers: several connections to Discord, each for a part of them.

Not discord.py's `AutoShardedClient`: that one identifies anew where the other client resumes, waits for the start of
all shards before it connects a lost one again, and logs a traceback every five seconds while one cannot connect.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from discord.state import AutoShardedConnectionState

from bot.discord_io.client import Client, Services
from bot.discord_io.shards import Shard
from bot.domain.models import require

if TYPE_CHECKING:
    from collections.abc import Sequence

    import aiohttp
    from discord.gateway import DiscordWebSocket


class ShardedClient(Client):
    """Keeps discord.py's state and events for several shards, and the connections by itself."""

    def __init__(self, services: Services, *, shards: int, http_trace: aiohttp.TraceConfig | None = None) -> None:
        super().__init__(services, http_trace=http_trace, shards=shards)
        self.shards: Sequence[Shard] = [Shard(self, number, services.identify_limit) for number in range(shards)]
        self._keeping: list[asyncio.Task[None]] = []

    def _get_state(self, **options: Any) -> AutoShardedConnectionState[ShardedClient]:
        state: AutoShardedConnectionState[ShardedClient] = AutoShardedConnectionState(
            dispatch=self.dispatch, handlers=self._handlers, hooks=self._hooks, http=self.http, **options
        )
        state.shard_ids = range(require(self.shard_count))  # those whose READY completes the start
        return state

    async def connect(self, *, reconnect: bool = True) -> None:  # noqa: ARG002 - it always does
        """Keep all shards connected until the client is closed. Raises what a shard cannot mend by itself."""
        self._keeping = [asyncio.create_task(shard.keep(), name=f"shard-{shard.number}") for shard in self.shards]
        try:
            await asyncio.wait(self._keeping, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended = await self._stop_keeping()
        for error in ended:
            if isinstance(error, Exception):
                raise error

    async def close(self) -> None:
        """Say goodbye on every connection."""
        await self.hang_up()
        await super().close()

    async def hang_up(self) -> None:
        """Close every connection to the gateway; requests can still be sent."""
        await self._stop_keeping()
        await asyncio.gather(*(shard.close() for shard in self.shards), return_exceptions=True)

    async def _stop_keeping(self) -> list[BaseException | None]:
        """Cancel what keeps the shards; returns how each of them has ended."""
        for task in self._keeping:
            task.cancel()
        return await asyncio.gather(*self._keeping, return_exceptions=True)

    def _get_websocket(self, guild_id: int | None = None, *, shard_id: int | None = None) -> DiscordWebSocket:
        number = (guild_id or 0) >> 22 if shard_id is None else shard_id
        return require(self.shards[number % len(self.shards)].websocket)

    async def before_identify_hook(self, *_: object, **__: object) -> None:
        """The pause between two was made by the shard, before it has opened its connection."""
        await self.services.identify_limit.spend()
