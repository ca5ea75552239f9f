"""The discord.py client: carries one bundle of services, loads the cogs by name, registers the commands."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

import aiohttp
import discord
from discord import app_commands
from discord.ext import commands

from bot.discord_io.application import invite_link
from bot.discord_io.command_sync import sync_commands
from bot.domain.errors import NotAllowed, RequestRejected, ShardsRecommended
from bot.domain.models import require
from bot.domain.session_starts import SessionStarts
from bot.text import operator

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from datetime import datetime

    from discord.gateway import DiscordWebSocket

    from bot.discord_io.identify_limit import IdentifyLimit
    from bot.domain.models import Format, Job, Model
    from bot.domain.privacy import RetentionRules
    from bot.domain.protocols import KeyValueStore, PolicyStore
    from bot.domain.usage import Usage
    from bot.images.smaller_copies import SmallerCopies
    from bot.jobs.administration import Administration
    from bot.jobs.admission import Admission
    from bot.jobs.choices import Choices
    from bot.jobs.lifecycle import Lifecycle
    from bot.jobs.notices import Notices
    from bot.jobs.operations import Operations
    from bot.jobs.outcomes import Outcomes
    from bot.jobs.personal_data import PersonalData
    from bot.jobs.recovery import Recovery
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
    "cogs.settings",
    "cogs.admin",
    "cogs.smaller_copies",
    "cogs.operator",
    "cogs.privacy",
)

# What belongs to a person does so wherever they ask for it.
_EVERYWHERE = ("recover", "privacy", "my-data")

# Open connections to Discord beside those to its gateway: enough for replies while 8 transfers run, few enough to stay
# small in a burst.
_CONNECTIONS = 64
_KEEPALIVE_SECONDS = 60.0
_ASKING_SECONDS = 15.0  # for the recommendation, without which one connection is opened


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that a cog may use."""

    admission: Admission
    policies: PolicyStore
    operations: Operations
    operators: frozenset[int]  # the users who may use /operator
    operator_server: int | None
    choices: Choices
    administration: Administration
    lifecycle: Lifecycle
    outcomes: Outcomes
    recovery: Recovery
    results: Results
    personal_data: PersonalData
    retention: RetentionRules
    find_shared: Callable[[Job, int], Awaitable[int | None]]  # in a channel: the message of an interrupted share
    draw_usage: Callable[[Usage, Mapping[int, str]], Awaitable[bytes | None]]  # a PNG, with names by id, if possible
    fetch_image: Callable[[str], Awaitable[bytes]]  # an image that Discord keeps, by its URL
    smaller_copies: SmallerCopies
    notices: Notices
    values: KeyValueStore
    identify_limit: IdentifyLimit
    clock: Callable[[], datetime]
    add_again_reaction: Callable[[Job, int], Awaitable[None]]  # to the message of a public result
    count_rejection: Callable[[str], None]  # by its kind
    count_connection: Callable[[str], None]  # to the gateway, with a "new" session or a "resumed" one
    default_model: Model
    default_format: Format
    costs: Mapping[Model, int]
    max_pixels: int  # of one image


class CommandTree(app_commands.CommandTree["Client"]):
    """Answers no command in a server that the operator does not offer the bot in."""

    async def interaction_check(self, interaction: discord.Interaction[Client], /) -> bool:
        services, command = interaction.client.services, interaction.command
        name = "" if command is None else command.qualified_name.split(" ")[0]
        if name in _EVERYWHERE or interaction.guild_id == services.operator_server:
            return True
        try:
            if interaction.guild_id is None:
                raise NotAllowed("no_server")  # forged: no command is offered outside of servers
            services.admission.access.check_server(interaction.guild_id)
        except RequestRejected as refusal:
            if interaction.type is discord.InteractionType.autocomplete:
                return False
            raise app_commands.CheckFailure from refusal
        return True


class Client(commands.Bot):
    """No intents but reactions: interactions need none, and without guilds a server costs 1.8 kB of memory instead of
    55.
    """

    def __init__(
        self, services: Services, *, http_trace: aiohttp.TraceConfig | None = None, shards: int | None = None
    ) -> None:
        self.services = services
        discord.VoiceClient.warn_nacl = discord.VoiceClient.warn_dave = False  # this bot never speaks
        super().__init__(
            command_prefix=commands.when_mentioned,
            help_command=None,
            intents=discord.Intents(guild_reactions=True),
            member_cache_flags=discord.MemberCacheFlags.none(),
            chunk_guilds_at_startup=False,
            max_messages=None,
            shard_count=shards,
            guild_ready_timeout=0.0,  # without the guilds intent, there is nothing to wait for after READY
            allowed_mentions=discord.AllowedMentions.none(),
            tree_cls=CommandTree,
            allowed_installs=app_commands.AppInstallationType(guild=True, user=False),
            allowed_contexts=app_commands.AppCommandContext(guild=True, dm_channel=False, private_channel=False),
            connector=aiohttp.TCPConnector(limit=_CONNECTIONS + (shards or 1), keepalive_timeout=_KEEPALIVE_SECONDS),
            http_trace=http_trace,  # type: ignore[arg-type]  # None is discord.py's default
        )

    async def setup_hook(self) -> None:
        """Between login and the gateway: everything that must be true before the first event."""
        for name in COGS:
            # Not as extensions: discord.py would run each file anew for every client, and make its classes twice.
            await import_module(name).setup(self)
        await self.services.recovery.recover()
        await self.sync_commands()

    async def on_ready(self) -> None:
        """Once for every session with Discord."""
        user, invite = require(self.user), invite_link(require(self.application_id))
        line = operator.connected(str(user), user.id, len(self.guilds), invite, shards=self.shard_count or 1)
        log.info("%s", line)

    async def on_connect(self) -> None:
        self.services.count_connection("new")

    async def on_resumed(self) -> None:
        self.services.count_connection("resumed")

    async def sync_commands(self) -> None:
        """Register the commands if they have changed. If Discord refuses, those of the last time stay: the operator is
        told, and the next connection or the next hour tries again.
        """
        try:
            await sync_commands(
                self.tree,
                application_id=self.application_id,
                values=self.services.values,
                server=self.services.operator_server,
            )
        except (discord.DiscordException, aiohttp.ClientError, OSError) as error:
            self.services.notices.commands_not_synced(_clause(error))

    async def server_ids(self) -> frozenset[int]:
        """Every server that the bot is in, as Discord lists them. Raises what discord.py raises."""
        return frozenset([guild.id async for guild in self.fetch_guilds(limit=None, with_counts=False)])

    async def connect(self, *, reconnect: bool = True) -> None:
        """Raises `ShardsRecommended` instead if Discord recommends more connections than this client's only one."""
        if (shards := await self._recommended()) > 1:
            raise ShardsRecommended(shards)
        await super().connect(reconnect=reconnect)

    async def _recommended(self) -> int:
        """How many connections Discord recommends, now or when it last said so. Too few are closed by Discord (4011),
        and the next client asks again.
        """
        limit = self.services.identify_limit
        try:
            async with asyncio.timeout(_ASKING_SECONDS):
                shards, _, starts = await self.http.get_bot_gateway()
                limit.heed(SessionStarts.of(shards, starts))
        except (discord.DiscordException, aiohttp.ClientError, OSError, LookupError, TypeError, ValueError) as error:
            log.warning("%s", operator.shards_unknown(_clause(error), shards=limit.shards))
        return limit.shards

    async def hang_up(self) -> None:
        """Close the connection to the gateway; requests can still be sent."""
        await close_websocket(self.ws)

    async def before_identify_hook(self, shard_id: int | None, *, initial: bool = False) -> None:
        """Every IDENTIFY passes here; raises `IdentifyLimitReached` rather than come near Discord's daily limit."""
        await super().before_identify_hook(shard_id, initial=initial)
        await self.services.identify_limit.spend()


async def close_websocket(websocket: DiscordWebSocket | None) -> None:
    """Say goodbye to Discord, if there is a connection."""
    if websocket is not None and websocket.open:
        await websocket.close(code=1000)


def _clause(error: Exception) -> str:
    if isinstance(error, discord.HTTPException):
        return f"{error.status}/{error.code}"
    return type(error).__name__
