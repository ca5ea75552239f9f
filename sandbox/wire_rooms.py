"""What this Discord is made of: its rules, and the rooms that the routes and the people work on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandbox.wire_scene import MIB

if TYPE_CHECKING:
    from sandbox.wire_commands import Commands
    from sandbox.wire_events import Events
    from sandbox.wire_gateway import Gateway
    from sandbox.wire_guilds import Society
    from sandbox.wire_interactions import Interactions
    from sandbox.wire_messages import Messages
    from sandbox.wire_reactions import Reactions
    from sandbox.wire_refusals import Faults
    from sandbox.wire_scene import Channels
    from sandbox.wire_signal import Signal


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
