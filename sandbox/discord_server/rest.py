"""The REST routes: each reads its request, makes one call, and answers in Discord's JSON."""

from __future__ import annotations

import socket
import struct
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from aiohttp import web

from sandbox.discord_server.api_errors import Fault, Refusal
from sandbox.discord_server.channels import ChannelRoutes, Handler, Routes
from sandbox.discord_server.files import Form, read_form
from sandbox.discord_server.guilds import GuildRoutes
from sandbox.discord_server.payloads import APPLICATION_ID, application, own_user, user
from sandbox.discord_server.responses import done, number, refused, reply

if TYPE_CHECKING:
    from sandbox.discord_server.messages import Message
    from sandbox.discord_server.state import Rooms

PREFIX = "/api/v10"
REQUESTS_REMEMBERED = 100_000
CONNECTION_LOST = 0
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Seen(NamedTuple):
    """A request and its answer; the status is 0 where the connection ended without one."""

    method: str
    path: str
    status: int


class Rest:
    """The routes, and the one door in front of them."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self.requests: deque[Seen] = deque(maxlen=REQUESTS_REMEMBERED)

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._door])
        for method, path, handler in self._routes():
            app.router.add_route(method, PREFIX + path, handler)
        app.router.add_get("/gateway", self._rooms.gateway.handle)
        return app

    def _routes(self) -> Routes:
        commands, guild_commands = (
            f"/applications/{{app:\\d+}}{place}/commands" for place in ("", "/guilds/{guild:\\d+}")
        )
        sent = "/webhooks/{app:\\d+}/{token}/messages/{message}"
        return (
            ("GET", "/users/@me", self._me),
            ("GET", "/users/{user:\\d+}", self._user),
            ("GET", "/oauth2/applications/@me", self._application),
            ("GET", "/gateway/bot", self._gateway),
            ("GET", commands, self._list_commands),
            ("PUT", commands, self._overwrite_commands),
            ("POST", commands, self._add_command),
            ("GET", guild_commands, self._list_commands),
            ("PUT", guild_commands, self._overwrite_commands),
            ("POST", guild_commands, self._add_command),
            ("POST", "/interactions/{interaction:\\d+}/{token}/callback", self._callback),
            ("POST", "/webhooks/{app:\\d+}/{token}", self._follow_up),
            ("GET", sent, self._get_sent),
            ("PATCH", sent, self._edit_sent),
            ("DELETE", sent, self._delete_sent),
            *ChannelRoutes(self._rooms).routes(),
            *GuildRoutes(self._rooms.society, self._rooms.channels).routes(),
        )

    @web.middleware
    async def _door(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Token, ordered misfortunes, refusals as JSON, and the record of requests."""
        if not request.path.startswith(PREFIX):
            return await handler(request)
        path = request.path.removeprefix(PREFIX)
        status = CONNECTION_LOST
        try:
            response = await self._answer(request, path, handler)
            status = response.status
        except Refusal as refusal:
            status = refusal.status
            response = refused(refusal)
        except ConnectionError:
            response = web.Response(status=499)
        finally:
            self.requests.append(Seen(request.method, path, status))
            self._rooms.signal.changed()
        return response

    async def _answer(self, request: web.Request, path: str, handler: Handler) -> web.StreamResponse:
        fault = self._rooms.faults.take(request.method, path)
        if fault is not None and not fault.after:
            return await _suffer(fault, request)
        self._check_token(request, path)
        try:
            response = await handler(request)
        except web.HTTPException as unrouted:
            raise Refusal(unrouted.status, message=f"{unrouted.status}: {unrouted.reason}") from None
        return response if fault is None else await _suffer(fault, request)

    def _check_token(self, request: web.Request, path: str) -> None:
        """Interaction tokens stand in the path; everything else needs the bot's own."""
        if path.startswith(("/interactions/", "/webhooks/")):
            return
        given = request.headers.get("Authorization", "")
        expected = self._rooms.rules.token
        if given != f"Bot {expected}" if expected is not None else not given.startswith("Bot "):
            raise Refusal(401)

    async def _form(self, request: web.Request) -> Form:
        rules = self._rooms.rules
        return await read_form(request, limit=rules.file_limit, keep=rules.keep_files)

    # the bot itself

    async def _me(self, _: web.Request) -> web.Response:
        return reply(own_user())

    async def _application(self, _: web.Request) -> web.Response:
        return reply(application())

    async def _user(self, request: web.Request) -> web.Response:
        return reply(user(number(request, "user")))

    async def _gateway(self, _: web.Request) -> web.Response:
        starts = {"total": 1000, "remaining": 1000, "reset_after": 0, "max_concurrency": 1}
        return reply({"url": self._rooms.gateway.url, "shards": 1, "session_start_limit": starts})

    # commands

    async def _list_commands(self, request: web.Request) -> web.Response:
        return reply(self._rooms.commands.at(_guild(request)))

    async def _overwrite_commands(self, request: web.Request) -> web.Response:
        return reply(self._rooms.commands.overwrite(_guild(request), await request.json()))

    async def _add_command(self, request: web.Request) -> web.Response:
        return reply(self._rooms.commands.add(_guild(request), await request.json()), status=201)

    # interactions and their webhook

    async def _callback(self, request: web.Request) -> web.Response:
        arrived = time.monotonic()
        form = await self._form(request)
        interaction = self._rooms.interactions.answer(
            number(request, "interaction"), request.match_info["token"], form, arrived=arrived
        )
        return reply(interaction.receipt()) if request.query.get("with_response") else done()

    async def _follow_up(self, request: web.Request) -> web.Response:
        form = await self._form(request)
        message = self._rooms.interactions.follow_up(_token(request), form)
        return reply(message.payload()) if request.query.get("wait") else done()

    async def _get_sent(self, request: web.Request) -> web.Response:
        return reply(self._sent(request).payload())

    async def _edit_sent(self, request: web.Request) -> web.Response:
        form = await self._form(request)
        message = self._rooms.interactions.edit(_token(request), request.match_info["message"], form)
        return reply(message.payload())

    async def _delete_sent(self, request: web.Request) -> web.Response:
        message = self._sent(request)
        self._rooms.messages.delete(message)
        await self._rooms.events.deleted(message)
        return done()

    def _sent(self, request: web.Request) -> Message:
        return self._rooms.interactions.message(_token(request), request.match_info["message"])


async def _suffer(fault: Fault, request: web.Request) -> web.StreamResponse:
    if fault.refusal is None:
        _reset(request)
        raise ConnectionResetError
    await request.release()
    raise fault.refusal


def _reset(request: web.Request) -> None:
    """Without lingering, the kernel says RST instead of FIN."""
    if request.transport is not None:
        request.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        request.transport.abort()


def _guild(request: web.Request) -> int | None:
    guild_id = request.match_info.get("guild")
    return None if guild_id is None else int(guild_id)


def _token(request: web.Request) -> str:
    """Of an interaction; the only webhooks here are this application's."""
    if number(request, "app") != APPLICATION_ID:
        raise Refusal.known(10015)
    return request.match_info["token"]
