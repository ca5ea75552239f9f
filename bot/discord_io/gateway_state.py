"""Whether Discord's gateway is connected now, as far as the heartbeats say.

discord.py calls a client ready for good once it has been, and a connection on which packets vanish looks open. A
heartbeat that is not acknowledged tells, well before discord.py itself gives the connection up (after 60 seconds).
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from bot.discord_io.sharded_client import ShardedClient
from bot.domain.health import Connection, Gateway, together

if TYPE_CHECKING:
    import discord
    from discord.gateway import DiscordWebSocket

    from bot.discord_io.shards import Shard

_NONE = Gateway(Connection.NO_SESSION, math.nan)
# Discord asks for a heartbeat every 41 seconds: an acknowledgment that is 10 seconds late is in time.
_LATE = 1.25  # intervals


def read(client: discord.Client) -> Gateway:
    """How the client is connected now: with several shards, all of them must be."""
    if isinstance(client, ShardedClient):
        return together([_shard_state(client, shard) for shard in client.shards])
    return _NONE if client.is_closed() else _state(client.ws)


def _shard_state(client: ShardedClient, shard: Shard) -> Gateway:
    if client.is_closed():
        return _NONE
    return Gateway(Connection.WAITING, math.nan) if shard.is_waiting else _state(shard.websocket)


def _state(socket: DiscordWebSocket | None) -> Gateway:
    if socket is None or (socket.open and socket.session_id is None):
        return _NONE
    beats = socket._keep_alive if socket.open else None  # noqa: SLF001 - nothing public has the last acknowledgment
    if beats is None:
        return Gateway(Connection.CLOSED, math.nan)
    if math.isinf(beats.latency):  # the first one is sent at once, so this lasts for a moment
        return Gateway(Connection.SILENT, math.nan)
    # Not compared with the last heartbeat: the thread that sends them may note one after it has been acknowledged.
    silence = time.perf_counter() - beats._last_ack  # noqa: SLF001
    late = silence > _LATE * (beats.interval or 0.0)
    return Gateway(Connection.SILENT if late else Connection.CONNECTED, beats.latency)
