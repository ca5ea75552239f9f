"""What this Discord is made of: its rules, and the rooms that the routes and the people work on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandbox.discord_server.payloads import MIB

if TYPE_CHECKING:
    from sandbox.discord_server.api_errors import Faults
    from sandbox.discord_server.commands import Commands
    from sandbox.discord_server.condition import Signal
    from sandbox.discord_server.events import Events
    from sandbox.discord_server.gateway import Gateway
    from sandbox.discord_server.guilds import Society
    from sandbox.discord_server.interactions import Interactions
    from sandbox.discord_server.messages import Messages
    from sandbox.discord_server.payloads import Channels
    from sandbox.discord_server.reactions import Reactions


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What this Discord insists on."""

    keep_files: bool = False
    ack_deadline: float = 3.0
    token: str | None = None
    token_life: float = 900.0
    file_limit: int = 10 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Rooms:
    """Everything the routes work on."""

    rules: Rules
    signal: Signal
    gateway: Gateway
    channels: Channels
    messages: Messages
    interactions: Interactions
    commands: Commands
    reactions: Reactions
    events: Events
    faults: Faults
    permissions: dict[int, int]
    society: Society
