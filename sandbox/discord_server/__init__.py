"""A simulated Discord on loopback, with gateway and REST API, for an unmodified discord.py."""

from sandbox.discord_server.commands import Option
from sandbox.discord_server.files import Attachment, Upload
from sandbox.discord_server.gateway import NotConnected
from sandbox.discord_server.guilds import Guilds
from sandbox.discord_server.interactions import Interaction
from sandbox.discord_server.messages import Edit, Message
from sandbox.discord_server.payloads import (
    APPLICATION_ID,
    CHANNEL_ID,
    GUILD_ID,
    MANAGE_MESSAGES,
    MIB,
    ORDINARY_PERMISSIONS,
    OWNER_ID,
    USER_ID,
)
from sandbox.discord_server.rest import LoggedRequest
from sandbox.discord_server.server import DiscordServer, serve

__all__ = [
    "APPLICATION_ID",
    "CHANNEL_ID",
    "GUILD_ID",
    "MANAGE_MESSAGES",
    "MIB",
    "ORDINARY_PERMISSIONS",
    "OWNER_ID",
    "USER_ID",
    "Attachment",
    "DiscordServer",
    "Edit",
    "Guilds",
    "Interaction",
    "LoggedRequest",
    "Message",
    "NotConnected",
    "Option",
    "Upload",
    "serve",
]
