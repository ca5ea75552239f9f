"""What the operator's monitoring asks for: whether Discord is connected now, or why not."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Connection(StrEnum):
    """How a connection to Discord's gateway is."""

    CONNECTED = "connected"
    NO_SESSION = "no_session"  # not yet, or not again
    CLOSED = "closed"
    SILENT = "silent"  # open, but a heartbeat was not acknowledged in time


@dataclass(frozen=True, slots=True)
class Gateway:
    """All connections together: the worst of them, and the highest latency in seconds (NaN while none is known)."""

    connection: Connection
    latency: float

    @property
    def is_connected(self) -> bool:
        return self.connection is Connection.CONNECTED
