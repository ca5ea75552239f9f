"""Whether Discord's gateway is connected now, as far as the heartbeats say.

discord.py calls a client ready for good once it has been, and a connection on which packets vanish looks open. A
heartbeat that is not acknowledged tells, well before discord.py itself gives the connection up (after 60 seconds).
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import discord

from bot.domain.health import Connection, Gateway

if TYPE_CHECKING:
    from collections.abc import Sequence

    from discord.gateway import DiscordWebSocket

# Discord asks for a heartbeat every 41 seconds: an acknowledgment that is 10 seconds late is in time.
_LATE = 1.25  # intervals
_WORST_FIRST = (Connection.NO_SESSION, Connection.CLOSED, Connection.SILENT, Connection.CONNECTED)


def read(client: discord.Client) -> Gateway:
    """How the client is connected now: with several shards, all of them must be."""
    sockets = [] if client.is_closed() else _sockets(client)
    if len(sockets) < (client.shard_count or 1):
        return Gateway(Connection.NO_SESSION, math.nan)
    states = [_state(socket) for socket in sockets]
    worst = min((state.connection for state in states), key=_WORST_FIRST.index)
    return Gateway(worst, max(state.latency for state in states))


def _sockets(client: discord.Client) -> Sequence[DiscordWebSocket | None]:
    """The websockets of the client, with None for one that there has never been."""
    if isinstance(client, discord.AutoShardedClient):
        return [shard._parent.ws for shard in client.shards.values()]  # noqa: SLF001 - nothing public has the heartbeats
    return [client.ws]


def _state(socket: DiscordWebSocket | None) -> Gateway:
    if socket is None or (socket.open and socket.session_id is None):
        return Gateway(Connection.NO_SESSION, math.nan)
    beats = socket._keep_alive if socket.open else None  # noqa: SLF001 - nothing public has the last acknowledgment
    if beats is None:
        return Gateway(Connection.CLOSED, math.nan)
    if math.isinf(beats.latency):  # the first one is sent at once, so this lasts for a moment
        return Gateway(Connection.SILENT, math.nan)
    # Not compared with the last heartbeat: the thread that sends them may note one after it has been acknowledged.
    silence = time.perf_counter() - beats._last_ack  # noqa: SLF001
    late = silence > _LATE * (beats.interval or 0.0)
    return Gateway(Connection.SILENT if late else Connection.CONNECTED, beats.latency)
