"""The REST routes of channels: messages and their reactions, as far as a bot token reaches."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import islice
from typing import TYPE_CHECKING

from aiohttp import web

from sandbox.discord_server.api_errors import Refusal
from sandbox.discord_server.files import Form, read_form
from sandbox.discord_server.payloads import APPLICATION_ID, MANAGE_MESSAGES, MIB, ORDINARY_PERMISSIONS, Json, person
from sandbox.discord_server.responses import done, number, reply

if TYPE_CHECKING:
    from sandbox.discord_server.messages import Message
    from sandbox.discord_server.state import Rooms

FILE_LIMIT = 10 * MIB

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Routes = tuple[tuple[str, str, Handler], ...]


class ChannelRoutes:
    """Ephemeral messages do not exist here; what people wrote in a guild is shown without its content."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms

    def routes(self) -> Routes:
        channel = "/channels/{channel:\\d+}"
        message = channel + "/messages/{message:\\d+}"
        reactions = message + "/reactions"
        reaction = reactions + "/{emoji}"
        return (
            ("POST", "/users/@me/channels", self._open_direct),
            ("GET", channel + "/messages", self._list_messages),
            ("POST", channel + "/messages", self._post_message),
            ("GET", message, self._get_message),
            ("PATCH", message, self._edit_message),
            ("DELETE", message, self._delete_message),
            ("DELETE", reactions, self._clear_reactions),
            ("GET", reaction, self._list_reactions),
            ("DELETE", reaction, self._clear_reactions),
            ("PUT", reaction + "/@me", self._react),
            ("DELETE", reaction + "/{user}", self._unreact),
        )

    async def _open_direct(self, request: web.Request) -> web.Response:
        channels = self._rooms.channels
        wanted = await request.json()
        return reply(channels.payload(channels.direct(int(wanted["recipient_id"]))))

    async def _list_messages(self, request: web.Request) -> web.Response:
        query = request.query
        after, before = int(query.get("after", 0)), int(query.get("before", 1 << 63))
        newest = self._rooms.messages.newest(number(request, "channel"))
        found = (_shown(message) for message in newest if after < message.id < before)
        return reply(list(islice(found, int(query.get("limit", 50)))))

    async def _post_message(self, request: web.Request) -> web.Response:
        channel_id = number(request, "channel")
        form = await self._form(request)
        if self._rooms.channels.partner(channel_id) in self._rooms.society.closed:
            raise Refusal.known(50007)
        return reply(self._rooms.messages.post(channel_id, form).payload())

    async def _get_message(self, request: web.Request) -> web.Response:
        return reply(_shown(self._message(request)))

    async def _edit_message(self, request: web.Request) -> web.Response:
        form = await self._form(request)
        message = self._message(request)
        if not message.own:
            raise Refusal.known(50005)
        self._rooms.messages.edit(message, form)
        return reply(message.payload())

    async def _delete_message(self, request: web.Request) -> web.Response:
        message = self._message(request)
        held = self._rooms.permissions.get(APPLICATION_ID, ORDINARY_PERMISSIONS)
        if not message.own and message.guild_id is None:
            raise Refusal.known(50003)
        if not message.own and not held & MANAGE_MESSAGES:
            raise Refusal.known(50013)
        self._rooms.messages.delete(message)
        await self._rooms.events.deleted(message)
        return done()

    async def _react(self, request: web.Request) -> web.Response:
        await self._rooms.reactions.add_own(self._message(request), request.match_info["emoji"])
        return done()

    async def _unreact(self, request: web.Request) -> web.Response:
        who = request.match_info["user"]
        user_id = APPLICATION_ID if who == "@me" else int(who)
        emoji = request.match_info["emoji"]
        await self._rooms.reactions.remove_by_bot(self._message(request), emoji, user_id=user_id)
        return done()

    async def _clear_reactions(self, request: web.Request) -> web.Response:
        await self._rooms.reactions.clear_by_bot(self._message(request), request.match_info.get("emoji"))
        return done()

    async def _list_reactions(self, request: web.Request) -> web.Response:
        users = sorted(self._message(request).reactions.get(request.match_info["emoji"], ()))
        after, limit = int(request.query.get("after", 0)), int(request.query.get("limit", 25))
        return reply([person(user_id) for user_id in users if user_id > after][:limit])

    def _message(self, request: web.Request) -> Message:
        return self._rooms.messages.find_public(number(request, "message"), number(request, "channel"))

    async def _form(self, request: web.Request) -> Form:
        rules = self._rooms.rules
        direct = self._rooms.channels.guild_id(number(request, "channel")) is None
        limit = min(rules.file_limit, FILE_LIMIT) if direct else rules.file_limit  # no server has raised it there
        return await read_form(request, limit=limit, keep=rules.keep_files)


def _shown(message: Message) -> Json:
    """Without the privileged intent, only its author is told what stands in a guild's message."""
    if message.own or message.guild_id is None:
        return message.payload()
    return message.payload() | {"content": "", "attachments": [], "embeds": [], "components": []}
