"""A Discord on loopback: gateway and REST, for a real bot in this process or another."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiohttp import web

from sandbox.discord_server.api_errors import KNOWN, Fault, Faults, Refusal
from sandbox.discord_server.commands import Commands, Option
from sandbox.discord_server.condition import Signal
from sandbox.discord_server.events import Events
from sandbox.discord_server.files import Attachment, Upload
from sandbox.discord_server.gateway import Gateway, NotConnected
from sandbox.discord_server.guilds import Society
from sandbox.discord_server.interactions import Interaction, Interactions
from sandbox.discord_server.messages import Edit, Message, Messages
from sandbox.discord_server.payloads import (
    APPLICATION_ID,
    CHANNEL_ID,
    GUILD_ID,
    MANAGE_MESSAGES,
    MIB,
    ORDINARY_PERMISSIONS,
    OWNER_ID,
    USER_ID,
    Channels,
    Json,
    Snowflakes,
)
from sandbox.discord_server.people import People
from sandbox.discord_server.reactions import Reactions
from sandbox.discord_server.rest import PREFIX, Rest, Seen
from sandbox.discord_server.state import Rooms, Rules

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import AsyncIterator, Callable

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
    "Interaction",
    "Message",
    "NotConnected",
    "Option",
    "Seen",
    "Society",
    "Upload",
    "serve",
]

BACKLOG = 4096  # a thousand commands at once open a thousand connections at once


class DiscordServer(People):
    """What a test sees of this Discord, and does in it."""

    def __init__(self, rules: Rules) -> None:
        ids, signal, permissions = Snowflakes(), Signal(), dict[int, int]()
        channels = Channels(ids)
        messages = Messages(ids, channels, signal)
        gateway = Gateway(signal, token=rules.token)
        events = Events(gateway)
        rooms = Rooms(
            rules=rules,
            signal=signal,
            gateway=gateway,
            channels=channels,
            messages=messages,
            interactions=Interactions(
                messages, ids, signal, ack_deadline=rules.ack_deadline, token_life=rules.token_life
            ),
            commands=Commands(ids),
            reactions=Reactions(events, permissions),
            events=events,
            faults=Faults(),
            permissions=permissions,
            society=Society(),
        )
        super().__init__(rooms, ids)
        self._signal = signal
        self._rest = Rest(rooms)
        self._told: set[asyncio.Task[None]] = set()
        self.rest_url = ""

    @property
    def gateway_url(self) -> str:
        return self._rooms.gateway.url

    @property
    def commands(self) -> list[Json]:
        """Every registered command, global and of guilds."""
        return self._rooms.commands.all()

    @property
    def messages(self) -> dict[int, Message]:
        return self._rooms.messages.by_id

    @property
    def interactions(self) -> dict[int, Interaction]:
        return self._rooms.interactions.by_id

    @property
    def requests(self) -> deque[Seen]:
        """The last ones answered, the newest at the end."""
        return self._rest.requests

    @property
    def connected(self) -> bool:
        return self._rooms.gateway.connected

    @property
    def identifies(self) -> int:
        return self._rooms.gateway.identifies

    @property
    def resumes(self) -> int:
        return self._rooms.gateway.resumes

    def environment(self) -> dict[str, str]:
        """For a bot started with `python -m sandbox.discord_server`."""
        return {"SANDBOX_DISCORD_REST": self.rest_url, "SANDBOX_DISCORD_GATEWAY": self.gateway_url}

    async def wait(self, predicate: Callable[[DiscordServer], bool], seconds: float = 10.0) -> None:
        """Until the predicate holds; looked at after every request, connection and change of a message."""
        await self._signal.until(lambda: predicate(self), seconds, about=self)

    async def ready(self, seconds: float = 10.0) -> None:
        """Until a bot has identified or resumed, and was told so."""
        await self.wait(lambda wire: wire.connected, seconds)

    async def gone(self, seconds: float = 10.0) -> None:
        await self.wait(lambda wire: not wire.connected, seconds)

    async def commands_synced(self, seconds: float = 10.0) -> list[Json]:
        await self.wait(lambda wire: bool(wire.commands), seconds)
        return self.commands

    def delete_message(self, message_id: int) -> asyncio.Task[None]:
        """As a member or a moderator would: done on return, and once awaited the bot has been told."""
        message = self.messages[message_id]
        self._rooms.messages.delete(message)
        told = asyncio.create_task(self._rooms.events.deleted(message))
        self._told.add(told)
        told.add_done_callback(self._told.discard)
        return told

    def expire_token(self, interaction: Interaction) -> None:
        interaction.expired = True

    def fail(
        self,
        method: str,
        path_glob: str,
        *,
        status: int | None = None,
        code: int = 0,
        times: int = 1,
        reset: bool = False,
        after: bool = False,
        retry_after: float = 0.05,
    ) -> None:
        """The next requests that match get an error, or a reset; with `after` only once they have taken effect.

        Paths go without /api/v10; method "*" means any; the status of a known code need not be given.
        """
        status = status or KNOWN.get(code, (500, ""))[0]
        details: Json = {"retry_after": retry_after, "global": False} if status == 429 else {}
        refusal = None if reset else Refusal(status, code=code, **details)
        self._rooms.faults.order(Fault(method, path_glob, refusal, times, after))

    async def drop_gateway(self) -> None:
        """Breaks the websocket; `ready` then waits for the bot to resume."""
        self._rooms.gateway.drop()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[DiscordServer]:
        runner = web.AppRunner(self._application(), access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0, backlog=BACKLOG).start()
            port = runner.addresses[0][1]
            self.rest_url = f"http://127.0.0.1:{port}{PREFIX}"
            self._rooms.gateway.url = f"ws://127.0.0.1:{port}/gateway"
            yield self
        finally:
            await runner.cleanup()

    def _application(self) -> web.Application:
        app = self._rest.application()

        async def hang_up(_: web.Application) -> None:
            self._rooms.gateway.drop()

        app.on_shutdown.append(hang_up)
        return app

    def __repr__(self) -> str:
        state = f"connected={self.connected} identifies={self.identifies} resumes={self.resumes}"
        return f"<DiscordServer {state} commands={len(self.commands)} last requests={list(self.requests)[-5:]}>"


@asynccontextmanager
async def serve(
    *,
    keep_files: bool = False,
    ack_deadline: float = 3.0,
    token: str | None = None,
    token_life: float = 900.0,
    file_limit: int = 10 * MIB,
) -> AsyncIterator[DiscordServer]:
    """Any bot token is good unless one is named; uploads are only hashed unless they are to be kept."""
    rules = Rules(
        keep_files=keep_files,
        ack_deadline=ack_deadline,
        token=token,
        token_life=token_life,
        file_limit=file_limit,
    )
    async with DiscordServer(rules).listening() as wire:
        yield wire
