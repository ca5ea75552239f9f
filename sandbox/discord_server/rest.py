"""The REST routes. Each reads its request, makes one call, and responds in Discord's JSON format."""

from __future__ import annotations

import socket
import struct
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from aiohttp import web

from sandbox.discord_server.api_errors import ApiError, Fault
from sandbox.discord_server.channels import ChannelRoutes, Handler, Routes
from sandbox.discord_server.files import Form, read_form
from sandbox.discord_server.guilds import GuildRoutes
from sandbox.discord_server.payloads import APPLICATION_ID, Json, application, own_user, user
from sandbox.discord_server.responses import error_response, json_response, no_content, path_id

if TYPE_CHECKING:
    from sandbox.discord_server.messages import Message
    from sandbox.discord_server.state import ServerState

PREFIX = "/api/v10"
REQUESTS_KEPT = 100_000
CONNECTION_LOST = 0
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class LoggedRequest(NamedTuple):
    """A request and its status, which is 0 if the connection ended without a response."""

    method: str
    path: str
    status: int


class Rest:
    """The routes, and the middleware in front of them."""

    def __init__(self, state: ServerState) -> None:
        self._state = state
        self.requests: deque[LoggedRequest] = deque(maxlen=REQUESTS_KEPT)
        self.application_fields: Json = {}

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._middleware])
        for method, path, handler in self._routes():
            app.router.add_route(method, PREFIX + path, handler)
        app.router.add_get("/gateway", self._state.gateway.handle)
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
            ("GET", "/applications/@me", self._application),
            ("GET", "/webhooks/{app:\\d+}/{token}", self._webhook),
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
            *ChannelRoutes(self._state).routes(),
            *GuildRoutes(self._state.guilds, self._state.channels).routes(),
        )

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Checks the token, injects faults, turns errors into JSON, and logs the request."""
        if not request.path.startswith(PREFIX):
            return await handler(request)
        path = request.path.removeprefix(PREFIX)
        status = CONNECTION_LOST
        try:
            response = await self._answer(request, path, handler)
            status = response.status
        except ApiError as error:
            status = error.status
            response = error_response(error)
        except ConnectionError:
            response = web.Response(status=499)
        finally:
            self.requests.append(LoggedRequest(request.method, path, status))
            self._state.condition.notify()
        return response

    async def _answer(self, request: web.Request, path: str, handler: Handler) -> web.StreamResponse:
        fault = self._state.faults.take(request.method, path)
        if fault is not None and not fault.after:
            return await self._apply_fault(fault, request)
        self._check_token(request, path)
        try:
            response = await handler(request)
        except web.HTTPException as unrouted:
            raise ApiError(unrouted.status, message=f"{unrouted.status}: {unrouted.reason}") from None
        return response if fault is None else await self._apply_fault(fault, request)

    async def _apply_fault(self, fault: Fault, request: web.Request) -> web.StreamResponse:
        if fault.hang:
            await self._state.faults.closing.wait()
        if fault.error is None:
            _reset(request)
            raise ConnectionResetError
        await request.release()
        raise fault.error

    def _check_token(self, request: web.Request, path: str) -> None:
        """Interaction routes carry their token in the path; all others need the bot token."""
        if path.startswith(("/interactions/", "/webhooks/")):
            return
        given = request.headers.get("Authorization", "")
        expected = self._state.config.token
        if given != f"Bot {expected}" if expected is not None else not given.startswith("Bot "):
            raise ApiError(401)

    async def _form(self, request: web.Request) -> Form:
        config = self._state.config
        return await read_form(request, limit=config.file_limit, keep=config.keep_files, known=config.known_file)

    # the bot itself

    async def _me(self, _: web.Request) -> web.Response:
        return json_response(own_user())

    async def _application(self, _: web.Request) -> web.Response:
        return json_response(application() | self.application_fields)

    async def _webhook(self, request: web.Request) -> web.Response:
        webhook_id = path_id(request, "app")
        if webhook_id == APPLICATION_ID:
            raise ApiError.from_code(10015)
        return json_response({"id": str(webhook_id), "type": 1, "name": "alerts"})

    async def _user(self, request: web.Request) -> web.Response:
        return json_response(user(path_id(request, "user")))

    async def _gateway(self, _: web.Request) -> web.Response:
        return json_response(self._state.gateway.starts.payload(self._state.gateway.url))

    # commands

    async def _list_commands(self, request: web.Request) -> web.Response:
        return json_response(self._state.commands.for_guild(_guild(request)))

    async def _overwrite_commands(self, request: web.Request) -> web.Response:
        return json_response(self._state.commands.overwrite(_guild(request), await request.json()))

    async def _add_command(self, request: web.Request) -> web.Response:
        return json_response(self._state.commands.add(_guild(request), await request.json()), status=201)

    # interactions and their webhook

    async def _callback(self, request: web.Request) -> web.Response:
        arrived = time.monotonic()
        form = await self._form(request)
        interaction = self._state.interactions.respond(
            path_id(request, "interaction"), request.match_info["token"], form, arrived=arrived
        )
        return json_response(interaction.callback_response()) if request.query.get("with_response") else no_content()

    async def _follow_up(self, request: web.Request) -> web.Response:
        form = await self._form(request)
        message = self._state.interactions.follow_up(_token(request), form)
        return json_response(message.payload()) if request.query.get("wait") else no_content()

    async def _get_sent(self, request: web.Request) -> web.Response:
        return json_response(self._sent_message(request).payload())

    async def _edit_sent(self, request: web.Request) -> web.Response:
        form = await self._form(request)
        message = self._state.interactions.edit(_token(request), request.match_info["message"], form)
        return json_response(message.payload())

    async def _delete_sent(self, request: web.Request) -> web.Response:
        message = self._sent_message(request)
        self._state.messages.delete(message)
        await self._state.events.send_message_delete(message)
        return no_content()

    def _sent_message(self, request: web.Request) -> Message:
        return self._state.interactions.message(_token(request), request.match_info["message"])


def _reset(request: web.Request) -> None:
    """With a linger time of zero, the kernel sends RST instead of FIN."""
    if request.transport is not None:
        request.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        request.transport.abort()


def _guild(request: web.Request) -> int | None:
    guild_id = request.match_info.get("guild")
    return None if guild_id is None else int(guild_id)


def _token(request: web.Request) -> str:
    """The interaction token. The only webhooks here belong to this application."""
    if path_id(request, "app") != APPLICATION_ID:
        raise ApiError.from_code(10015)
    return request.match_info["token"]
