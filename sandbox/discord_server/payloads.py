"""Ids, and the payloads of users, members, guilds and channels as Discord sends them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, TypeAlias, TypedDict

Json: TypeAlias = dict[str, Any]

APPLICATION_ID = 1_100_000_000_000_000_001
GUILD_ID = 1_100_000_000_000_000_002
CHANNEL_ID = 1_100_000_000_000_000_003
USER_ID = 1_100_000_000_000_000_004
OWNER_ID = 1_100_000_000_000_000_005

DISCORD_EPOCH_MS = 1_420_070_400_000
MIB = 1024 * 1024

ADD_REACTIONS, MANAGE_MESSAGES, READ_HISTORY = 1 << 6, 1 << 13, 1 << 16
VIEW_AND_SEND = 1 << 10 | 1 << 11 | READ_HISTORY | 1 << 38
EMBED_AND_ATTACH = 1 << 14 | 1 << 15
REACT_AND_COMMAND = ADD_REACTIONS | 1 << 18 | 1 << 31
ORDINARY_PERMISSIONS = VIEW_AND_SEND | EMBED_AND_ATTACH | REACT_AND_COMMAND


class Snowflakes:
    """Generates ids like Discord's: unique, increasing, and based on the time."""

    def __init__(self) -> None:
        self._last = 0

    def fresh(self) -> int:
        now = time.time_ns() // 1_000_000 - DISCORD_EPOCH_MS
        self._last = max(self._last + 1, now << 22)
        return self._last


class OriginFields(TypedDict, total=False):
    """The fields of an interaction's origin that a test can set."""

    user_id: int
    guild_id: int | None
    channel_id: int
    permissions: int
    app_permissions: int
    roles: tuple[int, ...]
    locale: str
    attachment_size_limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The origin of an interaction: its user and channel. Without a guild, the channel is a DM with the bot."""

    user_id: int = USER_ID
    guild_id: int | None = GUILD_ID
    channel_id: int = CHANNEL_ID
    permissions: int = ORDINARY_PERMISSIONS
    app_permissions: int = ORDINARY_PERMISSIONS
    roles: tuple[int, ...] = ()
    locale: str = "en-US"
    attachment_size_limit: int = 10 * MIB

    def payload(self) -> Json:
        return self._context() | {
            "channel_id": str(self.channel_id),
            "locale": self.locale,
            "app_permissions": str(self.app_permissions),
            "attachment_size_limit": self.attachment_size_limit,
            "entitlements": [],
        }

    def _context(self) -> Json:
        if self.guild_id is None:
            return {
                "user": user(self.user_id),
                "channel": direct_channel(self.channel_id, self.user_id),
                "context": 1,
                "authorizing_integration_owners": {"0": "0"},
            }
        return {
            "guild_id": str(self.guild_id),
            "guild": {"id": str(self.guild_id), "locale": "en-US", "features": []},
            "guild_locale": "en-US",
            "member": self.member() | {"user": user(self.user_id), "permissions": str(self.permissions)},
            "channel": text_channel(self.channel_id, self.guild_id) | {"permissions": str(self.permissions)},
            "context": 0,
            "authorizing_integration_owners": {"0": str(self.guild_id)},
        }

    def member(self) -> Json:
        return member() | {"roles": [str(role) for role in self.roles]}


class Channels:
    """The guild or the DM recipient of every channel. An unknown channel belongs to the guild."""

    def __init__(self, ids: Snowflakes) -> None:
        self._ids = ids
        self._guilds: dict[int, int | None] = {}
        self._recipients: dict[int, int] = {}

    def remember(self, origin: Origin) -> None:
        self._guilds[origin.channel_id] = origin.guild_id
        if origin.guild_id is None:
            self._recipients[origin.channel_id] = origin.user_id

    def guild_id(self, channel_id: int) -> int | None:
        return self._guilds.get(channel_id, GUILD_ID)

    def recipient(self, channel_id: int) -> int | None:
        """The user whose DM with the bot this channel is."""
        return self._recipients.get(channel_id)

    def direct(self, user_id: int) -> int:
        """The DM channel of the bot and this user, opened on first use."""
        for channel_id, recipient in self._recipients.items():
            if recipient == user_id:
                return channel_id
        origin = Origin(user_id=user_id, guild_id=None, channel_id=self._ids.fresh())
        self.remember(origin)
        return origin.channel_id

    def payload(self, channel_id: int) -> Json:
        guild_id = self.guild_id(channel_id)
        if guild_id is None:
            return direct_channel(channel_id, self._recipients[channel_id])
        return text_channel(channel_id, guild_id)


def user(user_id: int) -> Json:
    return {
        "id": str(user_id),
        "username": f"user{user_id % 100_000}",
        "global_name": f"User {user_id % 100_000}",
        "discriminator": "0",
        "avatar": None,
        "public_flags": 0,
        "flags": 0,
        "primary_guild": None,
    }


def person(user_id: int, *, bot: bool = False) -> Json:
    """A user, or the bot's own user."""
    if user_id == APPLICATION_ID:
        return bot_user()
    return user(user_id) | ({"bot": True} if bot else {})


def bot_user() -> Json:
    fields = {"username": "pikzels", "global_name": None, "discriminator": "0001", "bot": True}
    return user(APPLICATION_ID) | fields


def own_user() -> Json:
    return bot_user() | {"mfa_enabled": False, "locale": "en-US", "verified": True, "email": None}


def member() -> Json:
    return {
        "nick": None,
        "avatar": None,
        "banner": None,
        "roles": [],
        "joined_at": "2025-01-01T00:00:00+00:00",
        "premium_since": None,
        "communication_disabled_until": None,
        "pending": False,
        "deaf": False,
        "mute": False,
        "flags": 0,
    }


def application() -> Json:
    return {
        "id": str(APPLICATION_ID),
        "name": "pikzels",
        "icon": None,
        "description": "",
        "type": None,
        "bot": bot_user(),
        "bot_public": False,
        "bot_require_code_grant": False,
        "integration_types_config": {"0": {}, "1": {}},
        "verify_key": "0" * 64,
        "flags": 0,
        "flags_new": "0",
        "redirect_uris": [],
        "interactions_endpoint_url": None,
        "role_connections_verification_url": None,
        "owner": user(OWNER_ID),
        "approximate_guild_count": 1,
        "approximate_user_install_count": 0,
        "approximate_user_authorization_count": 0,
        "explicit_content_filter": 0,
        "eligible_oauth2_scopes": ["bot", "applications.commands"],
        "team": None,
    }


def text_channel(channel_id: int, guild_id: int) -> Json:
    return {
        "id": str(channel_id),
        "type": 0,
        "guild_id": str(guild_id),
        "name": "thumbnails",
        "position": 0,
        "permission_overwrites": [],
        "topic": None,
        "nsfw": False,
        "rate_limit_per_user": 0,
        "parent_id": None,
        "last_message_id": None,
        "flags": 0,
    }


def direct_channel(channel_id: int, user_id: int) -> Json:
    return {"id": str(channel_id), "type": 1, "flags": 0, "last_message_id": None, "recipients": [user(user_id)]}


def role(role_id: int) -> Json:
    return {
        "id": str(role_id),
        "name": f"role{role_id % 100_000}",
        "color": 0,
        "colors": {"primary_color": 0, "secondary_color": None, "tertiary_color": None},
        "hoist": False,
        "position": 0,
        "permissions": str(ORDINARY_PERMISSIONS),
        "managed": False,
        "mentionable": False,
        "flags": 0,
    }


def guild(guild_id: int) -> Json:
    return {
        "id": str(guild_id),
        "name": "Simulated server",
        "icon": None,
        "owner_id": str(OWNER_ID),
        "roles": [role(guild_id) | {"name": "@everyone"}],
        "channels": [text_channel(CHANNEL_ID, guild_id)],
        "members": [member() | {"user": bot_user()}],
        "threads": [],
        "emojis": [],
        "stickers": [],
        "features": [],
        "presences": [],
        "voice_states": [],
        "stage_instances": [],
        "guild_scheduled_events": [],
        "member_count": 2,
        "large": False,
        "unavailable": False,
        "premium_tier": 0,
        "preferred_locale": "en-US",
        "joined_at": "2025-01-01T00:00:00+00:00",
    }
