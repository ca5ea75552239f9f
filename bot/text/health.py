"""How the parts of the bot are, for the operator's monitoring and for `health`."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from bot.domain.health import Connection
from bot.domain.models import Circuit

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bot.domain.errors import StorageUnavailable
    from bot.domain.health import Gateway

OK = "ok"
LOOP_STUCK = "the event loop is blocked"
NO_PORT = "is not set, so the bot serves no health"
ANY_PORT = "is 0, so nobody knows where the bot serves its health"

CONNECTIONS: Mapping[Connection, str] = MappingProxyType(
    {
        Connection.CONNECTED: OK,
        Connection.WAITING: "it waits for its turn to connect",
        Connection.NO_SESSION: "there is no session with Discord",
        Connection.CLOSED: "the connection to Discord is closed",
        Connection.SILENT: "Discord does not acknowledge heartbeats",
    }
)
CIRCUITS: Mapping[Circuit, str] = MappingProxyType(
    {
        Circuit.KEY: "Pikzels refuses the API key or the account",
        Circuit.MOVED: "Pikzels answers with a redirect, which is never followed",
        Circuit.BALANCE: "the Pikzels balance is empty",
        Circuit.MAINTENANCE: "Pikzels is under maintenance",
        Circuit.FAILURES: "Pikzels keeps failing",
    }
)


def gateway(state: Gateway) -> str | None:
    """Why Discord is not connected, if it is not; with several connections, how many of them are not."""
    if state.is_connected:
        return None
    reason = CONNECTIONS[state.connection]
    return f"{state.away} of {len(state.shards)} connections to Discord: {reason}" if state.shards else reason


def database(unavailable: StorageUnavailable | None) -> str | None:
    if unavailable is None:
        return None
    what = "is damaged" if unavailable.damaged else "cannot be written"
    return f"the database {what} ({unavailable.problem})"


def circuits(opened: Iterable[Circuit]) -> str | None:
    return "; ".join(CIRCUITS[circuit] for circuit in opened) or None


def host_unknown(host: str) -> str:
    return f"is {host}, whose name cannot be resolved; set it to an address of this machine"


def host_elsewhere(host: str) -> str:
    return f"is {host}, which is no address of this machine; set it to one, like 127.0.0.1"


def port_in_use(host: str, port: int) -> str:
    return f"is {port}, which is in use by another program on {host}; end that program, or set another port"


def port_unusable(host: str, port: int, problem: str) -> str:
    """`problem` in the words of the operating system."""
    return f"is {port}, which cannot be used on {host} ({problem.lower()}); set another port"


def unreachable(host: str, port: int, observed: str) -> str:
    return f"The bot does not answer on {host} port {port} ({observed})."


def not_this_bot(host: str, port: int) -> str:
    return f"What answers on {host} port {port} is not this bot."
