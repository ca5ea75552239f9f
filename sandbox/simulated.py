"""The real bot in a simulated Discord, with the stand-in of Pikzels behind it: for the demo page and the tests."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import simcord

from bot import app, config
from sandbox import pikzels_server

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping
    from datetime import datetime
    from pathlib import Path

    import discord

API_KEY = "pkz_sandbox"
SETTLE_SECONDS = 30.0  # simcord waits this long for the bot to come to rest after an action


class Cdn:
    """Where the simulated Discord keeps pictures; it comes to be after the bot."""

    def __init__(self) -> None:
        self.world: World | None = None

    async def fetch(self, address: str) -> AsyncGenerator[bytes, None]:
        yield await self.read(address)

    async def read(self, address: str) -> bytes:
        assert self.world is not None, "nobody has given a picture yet"
        return bytes(await self.world.app.client.http.get_from_cdn(address))


@dataclass(slots=True)
class World:
    """A server with one channel and a few members; `app` is the bot as it runs now."""

    env: simcord.Env
    api: pikzels_server.StandIn
    settings: config.Settings
    guild: simcord.GuildHandle
    channel: simcord.ChannelHandle
    app: app.App
    _cdn: Cdn
    _running: AsyncExitStack

    def member(self, name: str) -> simcord.MemberActor:
        return self.guild.add_member(self.env.create_user(name))

    def message(self) -> discord.Message:
        """The newest message of the channel."""
        message = self.channel.last_message
        assert message is not None, "the channel is empty"
        return message

    async def restart(self) -> None:
        """Close the bot as SIGTERM would, and start it anew on the same storage and the same Discord."""
        await self._running.aclose()
        restarted = app.opened(self.settings, clock=self.env.now, cdn=self._cdn)
        self.app = await self._running.enter_async_context(restarted)
        await self.env.restart_bot(self.app.client)


@asynccontextmanager
async def opened(
    folder: Path,
    *,
    delay: float = 0.0,
    sections: Mapping[str, Mapping[str, Any]] | None = None,
    check_errors: bool = True,
) -> AsyncIterator[World]:
    """Start everything in `folder`; `delay` is the seconds one picture takes, `sections` are settings beyond it.

    Nothing is read from the environment or a config.toml. With `check_errors`, what the bot only logged is raised.
    """
    async with AsyncExitStack() as stack:
        cdn = Cdn()

        def clock() -> datetime:
            return app.utc_now() if cdn.world is None else cdn.world.env.now()

        api = await stack.enter_async_context(pikzels_server.serve(api_key=API_KEY, delay=delay, fetch=cdn.read))
        settings = _settings(folder, api, sections or {})
        running = await stack.enter_async_context(AsyncExitStack())
        bot = await running.enter_async_context(app.opened(settings, clock=clock, cdn=cdn))
        env = await stack.enter_async_context(
            simcord.run(bot.client, settle_timeout=SETTLE_SECONDS, check_errors=check_errors)
        )
        guild = env.create_guild(name="Thumbnail makers")
        world = World(env, api, settings, guild, guild.create_text_channel("thumbnails"), bot, cdn, running)
        cdn.world = world
        yield world
        await running.aclose()  # while its Discord is still there


def _settings(folder: Path, api: pikzels_server.StandIn, sections: Mapping[str, Mapping[str, Any]]) -> config.Settings:
    given: dict[str, dict[str, Any]] = {
        "discord": {"token": "sandbox"},
        "pikzels": {"api_key": API_KEY, "base_url": api.base_url},
        "storage": {"folder": folder},
        "shutdown": {"grace": 5.0},
    }
    for name, section in sections.items():
        given[name] = {**given.get(name, {}), **section}
    return config.Settings.model_validate(given)
