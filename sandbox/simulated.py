"""The real bot in a simulated Discord, with the stand-in for Pikzels, for the demo page and the tests."""

from __future__ import annotations

import math
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import discord
import simcord
from simcord.gateway import FakeWebSocket

from bot import app, config
from bot.domain.models import DEFAULT_UPLOAD_LIMIT, Requester
from sandbox import apps_menu, live, pikzels_server

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime
    from pathlib import Path

    from bot.domain.models import Allowance

    Opening = Callable[[config.Settings], AbstractAsyncContextManager[app.App]]

# simcord's websocket has no heartbeats. The bot looks at them to see whether it is connected: here, it always is.
_CONNECTED = {
    "session_id": "simulated",
    "_keep_alive": SimpleNamespace(latency=0.0, interval=41.25, _last_ack=math.inf),
}
for _name, _value in _CONNECTED.items():
    setattr(FakeWebSocket, _name, _value)

API_KEY = "pkz_sandbox"
# How long simcord waits for the bot to become idle after an action. Less than a kept connection lasts (30 s): simcord
# would wait for its end.
SETTLE_SECONDS = 20.0
# Shorter than the three seconds between two progress messages: simcord waits for what comes before the end of these.
LIVE_SETTLE_SECONDS = 2.5


class Cdn:
    """The CDN of the simulated Discord. `server` is set later, because the server starts after the bot."""

    def __init__(self) -> None:
        self.server: SimulatedServer | None = None

    async def fetch(self, address: str, **_: int | None) -> AsyncGenerator[bytes, None]:
        yield await self.read(address)

    def env(self) -> simcord.Env:
        assert self.server is not None, "the simulated server has not started"
        return self.server.env

    async def read(self, address: str) -> bytes:
        assert self.server is not None, "the simulated server has not started"
        return bytes(await self.server.app.client.http.get_from_cdn(address))


@dataclass(slots=True)
class SimulatedServer:
    """A Discord server with one channel. `app` is the running bot, which `restart` replaces."""

    env: simcord.Env
    api: pikzels_server.StandIn
    settings: config.Settings
    guild: simcord.GuildHandle
    channel: simcord.ChannelHandle
    app: app.App
    _open: Opening
    _running: AsyncExitStack
    clock: live.MovingClock | None = None  # only if it is live

    def member(self, name: str) -> simcord.MemberActor:
        return self.guild.add_member(self.env.create_user(name))

    def admin(self, name: str) -> simcord.MemberActor:
        """A member with Manage Server."""
        role = self.guild.create_role(
            "Admins", permissions=discord.Permissions(manage_guild=True, manage_messages=True)
        )
        return self.guild.add_member(self.env.create_user(name), roles=[role])

    async def operator(self, name: str) -> simcord.MemberActor:
        """A member who operates the bot from this server; the bot restarts for it."""
        role = self.guild.create_role("Operators", permissions=discord.Permissions(administrator=True))
        member = self.guild.add_member(self.env.create_user(name), roles=[role])
        appointed = config.Operator(users=frozenset({member.id}), server=self.guild.id)
        self.settings = self.settings.model_copy(update={"operator": appointed})
        await self.restart()
        return member

    async def allowance(self, member: simcord.MemberActor) -> Allowance:
        """What a member may use today."""
        services = self.app.client.services
        somebody = Requester(
            user_id=member.id,
            guild_id=self.guild.id,
            channel_id=self.channel.id,
            interaction_id=None,
            token="",
            asked_at=services.clock(),
            upload_limit=DEFAULT_UPLOAD_LIMIT,
        )
        return (await services.admission.allowances(somebody))[0]

    def message(self) -> discord.Message:
        """The latest message in the channel."""
        message = self.channel.last_message
        assert message is not None, "the channel is empty"
        return message

    async def restart(self) -> None:
        """Close the bot as SIGTERM would, then start it again with the same storage and the same Discord."""
        await self._running.aclose()
        self.app = await self._running.enter_async_context(self._open(self.settings))
        await self.env.restart_bot(self.app.client)


@asynccontextmanager
async def opened(
    folder: Path,
    *,
    delay: float = 0.0,
    sections: Mapping[str, Mapping[str, Any]] | None = None,
    check_errors: bool = True,
    is_live: bool = False,
) -> AsyncIterator[SimulatedServer]:
    """Start the bot and both servers, with storage in `folder`.

    Each image takes `delay` seconds. `sections` are additional settings; neither the environment nor a config.toml
    is read. With `check_errors`, errors that the bot only logs are raised. With `is_live`, time passes, the actions of
    members do not wait for the provider, and a command stands in for the menus of messages.
    """
    async with AsyncExitStack() as stack:
        cdn = Cdn()

        def clock() -> datetime:
            return app.utc_now() if cdn.server is None else cdn.server.env.now()

        api = await stack.enter_async_context(pikzels_server.serve(api_key=API_KEY, delay=delay, fetch=cdn.read))
        settings = _make_settings(folder, api, sections or {})
        running = await stack.enter_async_context(AsyncExitStack())

        @asynccontextmanager
        async def open_bot(settings: config.Settings) -> AsyncIterator[app.App]:
            wrap = partial(live.unblocked, env=cdn.env) if is_live else app.unwrapped
            async with app.opened(settings, clock=clock, cdn=cdn, wrap=wrap) as bot:
                if is_live:
                    apps_menu.add(bot.client)
                yield bot

        bot = await running.enter_async_context(open_bot(settings))
        patience = LIVE_SETTLE_SECONDS if is_live else SETTLE_SECONDS
        env = await stack.enter_async_context(
            simcord.run(bot.client, settle_timeout=patience, check_errors=check_errors)
        )
        moving = live.install(env) if is_live else None
        guild = env.create_guild(name="Thumbnail makers")
        server = SimulatedServer(
            env, api, settings, guild, guild.create_text_channel("thumbnails"), bot, open_bot, running, clock=moving
        )
        cdn.server = server
        yield server
        await running.aclose()  # before the simulated Discord closes


def _make_settings(
    folder: Path, api: pikzels_server.StandIn, sections: Mapping[str, Mapping[str, Any]]
) -> config.Settings:
    values: dict[str, dict[str, Any]] = {
        "discord": {"token": "sandbox"},
        "pikzels": {"api_key": API_KEY, "base_url": api.base_url},
        "storage": {"folder": folder},
        "shutdown": {"grace": 5.0},
    }
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section}
    return config.Settings.model_validate(values)
