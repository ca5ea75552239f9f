"""The REST routes: each reads its request, makes one call, and answers in Discord's JSON."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from aiohttp import web

from sandbox.wire_files import Form, read_form
from sandbox.wire_gateway import DIRECT_REACTIONS, GUILD_REACTIONS, Gateway, NotConnected
from sandbox.wire_messages import Message, Messages, emoji_payload
from sandbox.wire_refusals import Fault, Faults, Refusal
from sandbox.wire_scene import APPLICATION_ID, MIB, Channels, Json, application, member, own_user, user

if TYPE_CHECKING:
    from sandbox.wire_commands import Commands
    from sandbox.wire_interactions import Interactions
    from sandbox.wire_signal import Signal

PREFIX = "/api/v10"
REQUESTS_REMEMBERED = 100_000
CONNECTION_LOST = 0
RESET_ON_CLOSE = struct.pack("ii", 1, 0)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Seen(NamedTuple):
    """A request and its answer; the status is 0 where the connection ended without one."""

    method: str
    path: str
    status: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What this Discord insists on."""

    keep_files: bool = False
    ack_deadline: float = 3.0
    token: str | None = None
    token_life: float = 900.0
    file_limit: int = 10 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Rooms:
    """Everything the routes work on."""

    rules: Rules
    signal: Signal
    gateway: Gateway
    channels: Channels
    messages: Messages
    interactions: Interactions
    commands: Commands
    faults: Faults


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

    def _routes(self) -> tuple[tuple[str, str, Handler], ...]:
        commands, guild_commands = (
            f"/applications/{{app:\\d+}}{place}/commands" for place in ("", "/guilds/{guild:\\d+}")
        )
        sent = "/webhooks/{app:\\d+}/{token}/messages/{message}"
        channel = "/channels/{channel:\\d+}"
        message = channel + "/messages/{message:\\d+}"
        reaction = message + "/reactions/{emoji}"
        return (
            ("GET", "/users/@me", self._me),
            ("POST", "/users/@me/channels", self._open_direct),
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
            ("GET", channel, self._channel),
            ("GET", channel + "/messages", self._list_messages),
            ("POST", channel + "/messages", self._post_message),
            ("GET", message, self._get_message),
            ("PATCH", message, self._edit_message),
            ("DELETE", message, self._delete_message),
            ("PUT", reaction + "/@me", self._react),
            ("DELETE", reaction + "/{user}", self._unreact),
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
            response = _refused(refusal)
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
        return _reply(own_user())

    async def _application(self, _: web.Request) -> web.Response:
        return _reply(application())

    async def _user(self, request: web.Request) -> web.Response:
        return _reply(user(_number(request, "user")))

    async def _gateway(self, _: web.Request) -> web.Response:
        starts = {"total": 1000, "remaining": 1000, "reset_after": 0, "max_concurrency": 1}
        return _reply({"url": self._rooms.gateway.url, "shards": 1, "session_start_limit": starts})

    # commands

    async def _list_commands(self, request: web.Request) -> web.Response:
        return _reply(self._rooms.commands.at(_guild(request)))

    async def _overwrite_commands(self, request: web.Request) -> web.Response:
        return _reply(self._rooms.commands.overwrite(_guild(request), await request.json()))

    async def _add_command(self, request: web.Request) -> web.Response:
        return _reply(self._rooms.commands.add(_guild(request), await request.json()), status=201)

    # interactions and their webhook

    async def _callback(self, request: web.Request) -> web.Response:
        arrived = time.monotonic()
        form = await self._form(request)
        interaction = self._rooms.interactions.answer(
            _number(request, "interaction"), request.match_info["token"], form, arrived=arrived
        )
        return _reply(interaction.receipt()) if request.query.get("with_response") else web.Response(status=204)

    async def _follow_up(self, request: web.Request) -> web.Response:
        form = await self._form(request)
        message = self._rooms.interactions.follow_up(_token(request), form)
        return _reply(message.payload()) if request.query.get("wait") else web.Response(status=204)

    async def _get_sent(self, request: web.Request) -> web.Response:
        return _reply(self._sent(request).payload())

    async def _edit_sent(self, request: web.Request) -> web.Response:
        form = await self._form(request)
        message = self._sent(request)
        self._rooms.messages.edit(message, form)
        return _reply(message.payload())

    async def _delete_sent(self, request: web.Request) -> web.Response:
        self._rooms.messages.delete(self._sent(request))
        return web.Response(status=204)

    def _sent(self, request: web.Request) -> Message:
        return self._rooms.interactions.message(_token(request), request.match_info["message"])

    # channels and their messages

    async def _channel(self, request: web.Request) -> web.Response:
        return _reply(self._rooms.channels.payload(_number(request, "channel")))

    async def _open_direct(self, request: web.Request) -> web.Response:
        channels = self._rooms.channels
        wanted = await request.json()
        return _reply(channels.payload(channels.direct(int(wanted["recipient_id"]))))

    async def _list_messages(self, request: web.Request) -> web.Response:
        query = request.query
        after, before = int(query.get("after", 0)), int(query.get("before", 1 << 63))
        newest = self._rooms.messages.newest(_number(request, "channel"))
        found = (message.payload() for message in newest if after < message.id < before)
        return _reply(list(islice(found, int(query.get("limit", 50)))))

    async def _post_message(self, request: web.Request) -> web.Response:
        form = await self._form(request)
        return _reply(self._rooms.messages.post(_number(request, "channel"), form).payload())

    async def _get_message(self, request: web.Request) -> web.Response:
        return _reply(self._message(request).payload())

    async def _edit_message(self, request: web.Request) -> web.Response:
        form = await self._form(request)
        message = self._message(request)
        self._rooms.messages.edit(message, form)
        return _reply(message.payload())

    async def _delete_message(self, request: web.Request) -> web.Response:
        self._rooms.messages.delete(self._message(request))
        return web.Response(status=204)

    async def _react(self, request: web.Request) -> web.Response:
        await react(self._rooms, self._message(request), request.match_info["emoji"], user_id=APPLICATION_ID)
        return web.Response(status=204)

    async def _unreact(self, request: web.Request) -> web.Response:
        message, who = self._message(request), request.match_info["user"]
        users = message.reactions.get(request.match_info["emoji"], set())
        users.discard(APPLICATION_ID if who == "@me" else int(who))
        message.signal.changed()
        return web.Response(status=204)

    def _message(self, request: web.Request) -> Message:
        return self._rooms.messages.find_public(_number(request, "message"), _number(request, "channel"))


async def react(rooms: Rooms, message: Message, emoji: str, *, user_id: int) -> None:
    """Adds a reaction and tells whoever listens, the bot's own ones included."""
    message.reactions.setdefault(emoji, set()).add(user_id)
    message.signal.changed()
    event: Json = {
        "user_id": str(user_id),
        "channel_id": str(message.channel_id),
        "message_id": str(message.id),
        "message_author_id": str(APPLICATION_ID),
        "emoji": emoji_payload(emoji),
        "type": 0,
        "burst": False,
    }
    intent = DIRECT_REACTIONS
    if message.guild_id is not None:
        intent = GUILD_REACTIONS
        event |= {"guild_id": str(message.guild_id), "member": member() | {"user": user(user_id)}}
    with suppress(NotConnected):  # what happens while nobody listens is lost
        await rooms.gateway.dispatch("MESSAGE_REACTION_ADD", event, guild_id=message.guild_id, intent=intent)


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


def _refused(refusal: Refusal) -> web.Response:
    response = _reply(refusal.body, status=refusal.status)
    if refusal.status == 429:
        # discord.py takes a 429 without Via for a ban by Cloudflare and gives up
        response.headers["Via"] = "1.1 google"
        response.headers["Retry-After"] = str(refusal.body.get("retry_after", 0))
    return response


def _reply(payload: object, *, status: int = 200) -> web.Response:
    """Content-Type without a charset: discord.py compares it whole."""
    return web.Response(body=json.dumps(payload).encode(), status=status, content_type="application/json")


def _number(request: web.Request, name: str) -> int:
    return int(request.match_info[name])


def _guild(request: web.Request) -> int | None:
    guild_id = request.match_info.get("guild")
    return None if guild_id is None else int(guild_id)


def _token(request: web.Request) -> str:
    """Of an interaction; the only webhooks here are this application's."""
    if _number(request, "app") != APPLICATION_ID:
        raise Refusal.known(10015)
    return request.match_info["token"]
