"""The configuration of the simulated Discord, and the state that routes and user actions share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sandbox.discord_server.api_errors import Faults
    from sandbox.discord_server.commands import Commands
    from sandbox.discord_server.condition import Condition
    from sandbox.discord_server.events import Events
    from sandbox.discord_server.files import KnownFile
    from sandbox.discord_server.gateway import Gateway
    from sandbox.discord_server.guilds import Guilds
    from sandbox.discord_server.interactions import Interactions
    from sandbox.discord_server.messages import Messages
    from sandbox.discord_server.payloads import Channels
    from sandbox.discord_server.reactions import Reactions


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """The server's options; `serve` has the defaults."""

    keep_files: bool
    ack_deadline: float
    token: str | None
    token_life: float
    file_limit: int
    known_file: KnownFile | None
    heartbeat: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerState:
    """Everything that the routes read and change."""

    config: ServerConfig
    condition: Condition
    gateway: Gateway
    channels: Channels
    messages: Messages
    interactions: Interactions
    commands: Commands
    reactions: Reactions
    events: Events
    faults: Faults
    permissions: dict[int, int]
    guilds: Guilds
