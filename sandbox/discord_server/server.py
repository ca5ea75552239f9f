"""A simulated Discord on loopback, with gateway and REST API, for a real bot in this process or another one."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiohttp import web

from sandbox.discord_server.api_errors import KNOWN_ERRORS, ApiError, Fault, Faults
from sandbox.discord_server.commands import Commands
from sandbox.discord_server.condition import Condition
from sandbox.discord_server.events import Events
from sandbox.discord_server.files import KnownFile
from sandbox.discord_server.gateway import HEARTBEAT_SECONDS, Gateway, SessionStarts
from sandbox.discord_server.guilds import Guilds
from sandbox.discord_server.interactions import Interaction, Interactions
from sandbox.discord_server.messages import Message, Messages
from sandbox.discord_server.payloads import MIB, Channels, Json, Snowflakes
from sandbox.discord_server.people import People
from sandbox.discord_server.reactions import Reactions
from sandbox.discord_server.rest import PREFIX, LoggedRequest, Rest
from sandbox.discord_server.state import ServerConfig, ServerState

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import AsyncIterator, Callable
    from ssl import SSLContext

BACKLOG = 4096  # a thousand simultaneous commands open a thousand connections


class DiscordServer(People):
    """The interface for tests: the server's state, and the actions of its users."""

    def __init__(self, config: ServerConfig) -> None:
        ids, condition, permissions = Snowflakes(), Condition(), dict[int, int]()
        channels = Channels(ids)
        messages = Messages(ids, channels, condition)
        guilds = Guilds()
        gateway = Gateway(condition, token=config.token, heartbeat=config.heartbeat, guilds=guilds)
        events = Events(gateway)
        state = ServerState(
            config=config,
            condition=condition,
            gateway=gateway,
            channels=channels,
            messages=messages,
            interactions=Interactions(
                messages, ids, condition, ack_deadline=config.ack_deadline, token_life=config.token_life
            ),
            commands=Commands(ids),
            reactions=Reactions(events, permissions),
            events=events,
            faults=Faults(),
            permissions=permissions,
            guilds=guilds,
        )
        super().__init__(state, ids)
        self._condition = condition
        self._rest = Rest(state)
        self._pending_events: set[asyncio.Task[None]] = set()
        self.rest_url = ""

    @property
    def gateway_url(self) -> str:
        return self._state.gateway.url

    @property
    def commands(self) -> list[Json]:
        """Every registered command, global or of a guild."""
        return self._state.commands.all()

    @property
    def messages(self) -> dict[int, Message]:
        return self._state.messages.by_id

    @property
    def interactions(self) -> dict[int, Interaction]:
        return self._state.interactions.by_id

    @property
    def requests(self) -> deque[LoggedRequest]:
        """The latest requests, newest last."""
        return self._rest.requests

    @property
    def application_fields(self) -> Json:
        """What the application says of itself, beside the usual: `bot_public`, for example."""
        return self._rest.application_fields

    @property
    def connected(self) -> bool:
        return self._state.gateway.connected

    @property
    def identifies(self) -> int:
        return self._state.gateway.identifies

    @property
    def session_starts(self) -> SessionStarts:
        """What Discord says of new sessions. Tests set it."""
        return self._state.gateway.starts

    @property
    def shards(self) -> set[int]:
        """The shards that are connected."""
        return self._state.gateway.shards

    @property
    def refused_shards(self) -> set[int]:
        """Whoever identifies as one of these is cut off. Tests set it."""
        return self._state.gateway.refused_shards

    @property
    def identified(self) -> list[int]:
        """The shards in the order in which they have identified, also those refused."""
        return self._state.gateway.identified

    @property
    def goodbyes(self) -> list[int]:
        """The close codes of the websockets that have ended with one."""
        return self._state.gateway.goodbyes

    @property
    def resumes(self) -> int:
        return self._state.gateway.resumes

    def environment(self) -> dict[str, str]:
        """The environment variables for a bot that `python -m sandbox.launch` starts."""
        return {"SANDBOX_DISCORD_REST": self.rest_url, "SANDBOX_DISCORD_GATEWAY": self.gateway_url}

    async def wait(self, predicate: Callable[[DiscordServer], bool], seconds: float = 10.0) -> None:
        """Wait until the predicate is true. It is checked after every request, connection and message change."""
        await self._condition.wait_for(lambda: predicate(self), seconds, about=self)

    async def ready(self, seconds: float = 10.0) -> None:
        """Wait until a bot has identified or resumed, and has been told so."""
        await self.wait(lambda server: server.connected, seconds)

    async def gone(self, seconds: float = 10.0) -> None:
        await self.wait(lambda server: not server.connected, seconds)

    async def commands_synced(self, seconds: float = 10.0) -> list[Json]:
        await self.wait(lambda server: bool(server.commands), seconds)
        return self.commands

    def delete_message(self, message_id: int) -> asyncio.Task[None]:
        """A user deletes a message. It is deleted on return; await the task to wait until the bot has been told."""
        message = self.messages[message_id]
        self._state.messages.delete(message)
        sending = asyncio.create_task(self._state.events.send_message_delete(message))
        self._pending_events.add(sending)
        sending.add_done_callback(self._pending_events.discard)
        return sending

    def forget_nonces(self) -> None:
        """As after a few minutes: a message with a nonce used before is a new message."""
        self._state.messages.forget_nonces()

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
        hang: bool = False,
        after: bool = False,
        retry_after: float = 0.05,
    ) -> None:
        """Make the next matching requests fail with an error, or with a reset, or hang without an answer; with `after`,
        they take effect first.

        Paths omit /api/v10. The method "*" matches every method. A known code implies its status.
        """
        status = status or KNOWN_ERRORS.get(code, (500, ""))[0]
        details: Json = {"retry_after": retry_after, "global": False} if status == 429 else {}
        error = None if reset or hang else ApiError(status, code=code, **details)
        self._state.faults.add(Fault(method, path_glob, error, times, after, hang))

    def heal(self) -> None:
        """Let every request succeed again."""
        self._state.faults.clear()

    async def drop_gateway(self, shard: int | None = None) -> None:
        """Abort every websocket, or that of one shard. `ready` then waits until the bot has resumed."""
        self._state.gateway.drop(shard)

    def forget_sessions(self) -> None:
        """From now on, no session of before can be resumed."""
        self._state.gateway.forget_sessions()

    def freeze_gateway(self) -> None:
        """Answer nothing on any websocket, which stays open: the connection is cut, and nobody has been told."""
        self._state.gateway.freeze()

    def thaw_gateway(self) -> None:
        """Answer again, also what was sent meanwhile."""
        self._state.gateway.thaw()

    def cut_gateway(self) -> None:
        """Abort the websocket, and refuse every new one."""
        self._state.gateway.cut()

    def mend_gateway(self) -> None:
        """Accept websockets again."""
        self._state.gateway.mend()

    @property
    def refused_connections(self) -> int:
        """How many websockets were refused while the gateway was cut."""
        return self._state.gateway.refused

    @asynccontextmanager
    async def listening(self, tls: SSLContext | None = None) -> AsyncIterator[DiscordServer]:
        runner = web.AppRunner(self._application(), access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0, backlog=BACKLOG, ssl_context=tls).start()
            port, secure = runner.addresses[0][1], "s" if tls else ""
            self.rest_url = f"http{secure}://127.0.0.1:{port}{PREFIX}"
            self._state.gateway.url = f"ws{secure}://127.0.0.1:{port}/gateway"
            yield self
        finally:
            await runner.cleanup()

    def _application(self) -> web.Application:
        app = self._rest.application()

        async def drop_connections(_: web.Application) -> None:
            self._state.faults.closing.set()
            self._state.gateway.thaw()
            self._state.gateway.drop()

        app.on_shutdown.append(drop_connections)
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
    tls: SSLContext | None = None,
    known_file: bytes | None = None,
    heartbeat: float = HEARTBEAT_SECONDS,
) -> AsyncIterator[DiscordServer]:
    """Run the server. Without `token` it accepts any bot token; without `keep_files` it only hashes uploads; without
    `tls` it speaks plain HTTP. An upload of `known_file` costs the server little time. It asks for a heartbeat every
    `heartbeat` seconds.
    """
    config = ServerConfig(
        keep_files=keep_files,
        ack_deadline=ack_deadline,
        token=token,
        token_life=token_life,
        file_limit=file_limit,
        known_file=None if known_file is None else KnownFile(known_file),
        heartbeat=heartbeat,
    )
    async with DiscordServer(config).listening(tls) as server:
        yield server
