"""The discord.py client: carries one bundle of services, loads the cogs by name, syncs commands when they changed."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

import aiohttp
import discord
from discord import app_commands
from discord.ext import commands

from bot.domain.errors import IdentifiesSpent

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from bot.domain.models import Format, Job, Model, Picture
    from bot.jobs.lifecycle import Thumbnails
    from bot.jobs.results import Results

log = logging.getLogger(__name__)

COGS = (
    "cogs.error_handler",
    "cogs.thumbnail",
    "cogs.results",
    "cogs.forms",
    "cogs.reactions",
    "cogs.history",
    "cogs.account",
)

# Warm connections to Discord: enough for answers while 16 transfers run, few enough to stay small in a burst.
_CONNECTIONS = 64
_KEEPALIVE_SECONDS = 60.0

_SYNCED = "commands-synced"
_IDENTIFIED = "identified"

_HOUR = timedelta(hours=1)
_FREE_IDENTIFIES = 20
_IDENTIFY_PAUSE = timedelta(minutes=5)


class Facts(Protocol):
    """Small facts that outlive a restart."""

    async def fact(self, name: str) -> str | None: ...
    async def remember(self, name: str, value: str) -> None: ...


class Identifies:
    """Counts IDENTIFYs across restarts: Discord resets the token of a bot that sends 1,000 in a day.

    20 within an hour are free, enough for any bad hour; beyond that one every five minutes, 480 a day at most.
    """

    def __init__(self, facts: Facts, *, clock: Callable[[], datetime]) -> None:
        self._facts = facts
        self._clock = clock

    async def wait(self) -> timedelta:
        """How long until the next one is allowed."""
        return _wait(await self._recent(), self._clock())

    async def spend(self) -> None:
        """Write one down before it is sent; raises `IdentifiesSpent` when it is not allowed now."""
        recent, now = await self._recent(), self._clock()
        if (wait := _wait(recent, now)) > timedelta(0):
            raise IdentifiesSpent(wait)
        await self._facts.remember(_IDENTIFIED, json.dumps([at.timestamp() for at in [*recent, now]]))

    async def _recent(self) -> list[datetime]:
        known = json.loads(await self._facts.fact(_IDENTIFIED) or "[]")
        times = (datetime.fromtimestamp(seconds, UTC) for seconds in known)
        return [at for at in times if at > self._clock() - _HOUR]


def _wait(recent: list[datetime], now: datetime) -> timedelta:
    if len(recent) < _FREE_IDENTIFIES:
        return timedelta(0)
    return max(timedelta(0), recent[-1] + _IDENTIFY_PAUSE - now)


@dataclass(frozen=True, slots=True)
class Services:
    """All that a cog may use."""

    thumbnails: Thumbnails
    results: Results
    fetched: Callable[[str], Awaitable[bytes]]  # a picture that Discord keeps, by its address
    facts: Facts
    identifies: Identifies
    clock: Callable[[], datetime]
    attachment: Callable[[Job, Picture, int], Awaitable[discord.File]]  # made to fit so many bytes
    refused: Callable[[str], None]  # counts a refusal by its kind
    default_model: Model
    default_format: Format
    costs: Mapping[Model, int]
    personas: Mapping[str, str]
    styles: Mapping[str, str]


class Client(commands.Bot):
    """No intents but reactions: interactions need none, and without guilds a server costs 1.8 kB of memory instead of
    55.
    """

    def __init__(self, services: Services) -> None:
        self.services = services
        discord.VoiceClient.warn_nacl = discord.VoiceClient.warn_dave = False  # this bot never speaks
        super().__init__(
            command_prefix=commands.when_mentioned,
            help_command=None,
            intents=discord.Intents(guild_reactions=True),
            member_cache_flags=discord.MemberCacheFlags.none(),
            chunk_guilds_at_startup=False,
            max_messages=None,
            allowed_mentions=discord.AllowedMentions.none(),
            allowed_installs=app_commands.AppInstallationType(guild=True, user=False),
            allowed_contexts=app_commands.AppCommandContext(guild=True, dm_channel=False, private_channel=False),
            connector=aiohttp.TCPConnector(limit=_CONNECTIONS, keepalive_timeout=_KEEPALIVE_SECONDS),
        )

    async def setup_hook(self) -> None:
        """Between login and the gateway: everything that must be true before the first event."""
        for name in COGS:
            await self.load_extension(name)
        await self._sync_commands()
        await self.services.thumbnails.recover()

    async def before_identify_hook(self, shard_id: int | None, *, initial: bool = False) -> None:
        """Every IDENTIFY passes here; raises `IdentifiesSpent` rather than spend what Discord allows in a day."""
        await super().before_identify_hook(shard_id, initial=initial)
        await self.services.identifies.spend()

    async def _sync_commands(self) -> None:
        """Overwrite the commands at Discord only when they differ from what was last sent for this application."""
        payload = [command.to_dict(self.tree) for command in self.tree.get_commands()]
        digest = _digest({"application": self.application_id, "commands": payload})
        if await self.services.facts.fact(_SYNCED) == digest:
            return
        await self.tree.sync()
        await self.services.facts.remember(_SYNCED, digest)
        log.info("%d commands synced", len(payload))


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
