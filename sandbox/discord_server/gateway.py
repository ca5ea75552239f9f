"""The gateway: HELLO, IDENTIFY or RESUME, heartbeats, and events as plain JSON."""

from __future__ import annotations

import asyncio
import json
import secrets
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

from aiohttp import WSMsgType, web

from sandbox.discord_server.guilds import covers
from sandbox.discord_server.payloads import APPLICATION_ID, GUILD_ID, Json, bot_user, guild

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox.discord_server.condition import Condition
    from sandbox.discord_server.guilds import Guilds

GUILDS = 1 << 0
GUILD_MESSAGES, GUILD_REACTIONS = 1 << 9, 1 << 10
DIRECT_MESSAGES, DIRECT_REACTIONS = 1 << 12, 1 << 13
HEARTBEAT_SECONDS = 41.25
AUTHENTICATION_FAILED, SHARDING_REQUIRED = 4004, 4011


class Op(IntEnum):
    """Gateway opcodes."""

    DISPATCH = 0
    HEARTBEAT = 1
    IDENTIFY = 2
    RESUME = 6
    INVALID_SESSION = 9
    HELLO = 10
    HEARTBEAT_ACK = 11


@dataclass(slots=True, kw_only=True)
class SessionStarts:
    """What /gateway/bot says: how many shards Discord recommends, and how many may identify, until `reset_after` ms
    from now, and at once. A bot that identifies with fewer shards than are `required` is refused.
    """

    shards: int = 1
    required: int = 1
    total: int = 1000
    remaining: int = 1000
    reset_after: int = 86_400_000
    max_concurrency: int = 1

    def payload(self, url: str) -> Json:
        names = ("total", "remaining", "reset_after", "max_concurrency")
        return {
            "url": url,
            "shards": self.shards,
            "session_start_limit": {name: getattr(self, name) for name in names},
        }


class NotConnected(ConnectionError):
    """No bot is connected to the gateway."""


@dataclass(slots=True, eq=False)
class Session:
    """A gateway session, which the bot can resume."""

    intents: int
    shard: tuple[int, int]
    id: str = field(default_factory=lambda: secrets.token_hex(16))
    sequence: int = 0

    def covers(self, guild_id: int | None) -> bool:
        return covers(self.shard, guild_id)


@dataclass(slots=True, eq=False)
class Connection:
    """One websocket, and its session once the bot is ready."""

    socket: web.WebSocketResponse
    request: web.Request
    session: Session | None = None

    async def send(self, op: Op, data: object, **more: object) -> None:
        await self.socket.send_str(json.dumps({"op": op, "d": data, "s": None, "t": None} | more))

    async def dispatch(self, session: Session, event: str, data: Json) -> None:
        session.sequence += 1
        await self.send(Op.DISPATCH, data, s=session.sequence, t=event)

    @property
    def shard(self) -> int | None:
        return None if self.session is None else self.session.shard[0]

    def abort(self) -> None:
        if self.request.transport is not None:
            self.request.transport.abort()


class Gateway:
    """All websockets of the bot. The newest ready connection of a shard receives the events."""

    def __init__(self, condition: Condition, *, token: str | None, heartbeat: float, guilds: Guilds) -> None:
        self._condition = condition
        self._guilds = guilds
        self._token = token
        self._heartbeat = heartbeat
        self._thawed = asyncio.Event()
        self._thawed.set()
        self._is_cut = False
        self.refused = 0
        self._connections: list[Connection] = []
        self._sessions: dict[str, Session] = {}
        self.url = ""
        self.starts = SessionStarts()
        self.refused_shards: set[int] = set()
        self.identified: list[int] = []  # the shards, in the order of their IDENTIFYs, also of those refused
        self.goodbyes: list[int] = []  # the close codes that the bot has sent
        self.identifies = 0
        self.resumes = 0

    @property
    def connected(self) -> bool:
        return next(self._ready(), None) is not None

    @property
    def shards(self) -> set[int]:
        """Those that are connected."""
        return {session.shard[0] for _, session in self._ready()}

    async def dispatch(self, event: str, data: Json, *, guild_id: int | None, intent: int = 0) -> None:
        """Sends the event to the guild's shard, unless the session lacks the intent; raises NotConnected."""
        await self._thawed.wait()
        for connection, session in self._ready():
            if session.covers(guild_id):
                if not intent or session.intents & intent:
                    await connection.dispatch(session, event, data)
                return
        raise NotConnected

    def drop(self, shard: int | None = None) -> None:
        """Aborts every websocket without a close frame, or only those of one shard."""
        for connection in [each for each in self._connections if shard is None or each.shard == shard]:
            connection.abort()
            self._connections.remove(connection)
        self._condition.notify()

    def forget_sessions(self) -> None:
        """From now on, no session of before can be resumed."""
        self._sessions.clear()

    def freeze(self) -> None:
        """From now on, nothing is answered, but every websocket stays open: as if the packets vanished."""
        self._thawed.clear()

    def thaw(self) -> None:
        self._thawed.set()

    def cut(self) -> None:
        """Aborts every websocket, and refuses new ones."""
        self._is_cut = True
        self.drop()

    def mend(self) -> None:
        self._is_cut = False

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if self._is_cut:
            self.refused += 1
            self._condition.notify()
            return web.Response(status=503)
        await self._thawed.wait()
        if request.transport is None:
            return web.Response()  # the bot has given up meanwhile
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        connection = Connection(socket, request)
        self._connections.append(connection)
        try:
            await connection.send(Op.HELLO, {"heartbeat_interval": round(self._heartbeat * 1000)})
            async for frame in socket:
                await self._thawed.wait()
                if frame.type is WSMsgType.TEXT:
                    await self._receive(connection, json.loads(frame.data))
        except ConnectionError:
            pass  # the bot died while the server was sending
        finally:
            if socket.close_code is not None:
                self.goodbyes.append(socket.close_code)
            self._forget(connection)
        return socket

    def _ready(self) -> Iterator[tuple[Connection, Session]]:
        for connection in reversed(self._connections):
            if connection.session is not None and not connection.socket.closed:
                yield connection, connection.session

    def _forget(self, connection: Connection) -> None:
        if connection in self._connections:
            self._connections.remove(connection)
        self._condition.notify()

    async def _receive(self, connection: Connection, frame: Json) -> None:
        match frame["op"]:
            case Op.HEARTBEAT:
                await connection.send(Op.HEARTBEAT_ACK, None)
            case Op.IDENTIFY if self._has_wrong_token(frame["d"]):
                await connection.socket.close(code=AUTHENTICATION_FAILED, message=b"Authentication failed.")
            case Op.IDENTIFY:
                await self._identify(connection, frame["d"])
            case Op.RESUME:
                await self._resume(connection, frame["d"])

    def _has_wrong_token(self, data: Json) -> bool:
        return self._token is not None and data["token"] != self._token

    async def _identify(self, connection: Connection, data: Json) -> None:
        number, total = data.get("shard", (0, 1))
        self.identified.append(number)
        self.starts.remaining -= 1
        if total < self.starts.required:
            await connection.socket.close(code=SHARDING_REQUIRED, message=b"Sharding required.")
            return
        if number in self.refused_shards:
            connection.abort()
            self._condition.notify()
            return
        session = Session(data.get("intents", 0), (number, total))
        self._sessions[session.id] = session
        await connection.dispatch(session, "READY", self._ready_payload(session))
        if session.intents & GUILDS and session.covers(GUILD_ID):
            await connection.dispatch(session, "GUILD_CREATE", guild(GUILD_ID))
        self.identifies += 1
        self._attach(connection, session)

    async def _resume(self, connection: Connection, data: Json) -> None:
        """Resumes the session. Missed events are not replayed."""
        session = self._sessions.get(data["session_id"])
        if session is None or self._has_wrong_token(data):
            await connection.send(Op.INVALID_SESSION, False)
            return
        await connection.dispatch(session, "RESUMED", {})
        self.resumes += 1
        self._attach(connection, session)

    def _attach(self, connection: Connection, session: Session) -> None:
        connection.session = session
        self._condition.notify()

    def _ready_payload(self, session: Session) -> Json:
        return {
            "v": 10,
            "user": bot_user(),
            "guilds": [{"id": str(each), "unavailable": True} for each in self._guilds.joined_by(session.shard)],
            "session_id": session.id,
            "session_type": "normal",
            "resume_gateway_url": self.url,
            "shard": list(session.shard),
            "application": {"id": str(APPLICATION_ID), "flags": 0},
            "private_channels": [],
            "presences": [],
            "relationships": [],
        }
