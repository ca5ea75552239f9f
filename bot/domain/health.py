"""What the operator's monitoring asks for: whether Discord is connected now, or why not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class Connection(StrEnum):
    """How a connection to Discord's gateway is."""

    CONNECTED = "connected"
    WAITING = "waiting"  # for its turn: Discord lets shards identify one after the other
    NO_SESSION = "no_session"  # not yet, or not again
    CLOSED = "closed"
    SILENT = "silent"  # open, but a heartbeat was not acknowledged in time


_WORST_FIRST = (
    Connection.NO_SESSION,
    Connection.CLOSED,
    Connection.SILENT,
    Connection.WAITING,
    Connection.CONNECTED,
)


@dataclass(frozen=True, slots=True)
class Gateway:
    """All connections together: the worst of them, and the highest latency in seconds (NaN while none is known).
    `shards` are all of them if there are several.
    """

    connection: Connection
    latency: float
    shards: tuple[Connection, ...] = ()

    @property
    def is_connected(self) -> bool:
        return self.connection is Connection.CONNECTED

    @property
    def connections(self) -> tuple[Connection, ...]:
        return self.shards or (self.connection,)

    @property
    def away(self) -> int:
        """How many connections are not connected."""
        return sum(connection is not Connection.CONNECTED for connection in self.connections)

    @property
    def are_all_away(self) -> bool:
        return self.away == len(self.connections)


def together(states: Sequence[Gateway]) -> Gateway:
    """The shards as one."""
    shards = tuple(state.connection for state in states)
    latencies = [state.latency for state in states if not math.isnan(state.latency)]
    return Gateway(min(shards, key=_WORST_FIRST.index), max(latencies, default=math.nan), shards)
