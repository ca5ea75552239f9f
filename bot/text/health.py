"""How the parts of the bot are, for the operator's monitoring."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from bot.domain.health import Connection

if TYPE_CHECKING:
    from collections.abc import Mapping

OK = "ok"

CONNECTIONS: Mapping[Connection, str] = MappingProxyType(
    {
        Connection.CONNECTED: OK,
        Connection.NO_SESSION: "there is no session with Discord",
        Connection.CLOSED: "the connection to Discord is closed",
        Connection.SILENT: "Discord does not acknowledge heartbeats",
    }
)
