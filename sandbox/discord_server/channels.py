"""The REST routes of channels: the messages and reactions that a bot token can access."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from aiohttp import web

from sandbox.discord_server.api_errors import ApiError
from sandbox.discord_server.files import Form, read_form
from sandbox.discord_server.payloads import APPLICATION_ID, MANAGE_MESSAGES, MIB, ORDINARY_PERMISSIONS, Json, person
from sandbox.discord_server.responses import json_response, no_content, path_id

if TYPE_CHECKING:
    from sandbox.discord_server.messages import Message
    from sandbox.discord_server.state import ServerState

FILE_LIMIT = 10 * MIB

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Routes = tuple[tuple[str, str, Handler], ...]


class ChannelRoutes:
    """These routes never show ephemeral messages, and they hide the content of messages by guild members."""

    def __init__(self, state: ServerState) -> None:
        self._state = state

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
        channels = self._state.channels
        body = await request.json()
        return json_response(channels.payload(channels.direct(int(body["recipient_id"]))))

    async def _list_messages(self, request: web.Request) -> web.Response:
        """Newest first; with `after`, the page that follows that id directly."""
        query = request.query
        after, before = int(query.get("after", 0)), int(query.get("before", 1 << 63))
        limit = int(query.get("limit", 50))
        newest = self._state.messages.newest_first(path_id(request, "channel"))
        found = [message for message in newest if after < message.id < before]
        page = found[-limit:] if "after" in query else found[:limit]
        return json_response([_visible_payload(message) for message in page])

    async def _post_message(self, request: web.Request) -> web.Response:
        channel_id = path_id(request, "channel")
        form = await self._form(request)
        if self._state.channels.recipient(channel_id) in self._state.guilds.dms_closed:
            raise ApiError.from_code(50007)
        return json_response(self._state.messages.post(channel_id, form).payload())

    async def _get_message(self, request: web.Request) -> web.Response:
        return json_response(_visible_payload(self._message(request)))

    async def _edit_message(self, request: web.Request) -> web.Response:
        form = await self._form(request)
        message = self._message(request)
        if not message.sent_by_bot:
            raise ApiError.from_code(50005)
        self._state.messages.edit(message, form)
        return json_response(message.payload())

    async def _delete_message(self, request: web.Request) -> web.Response:
        message = self._message(request)
        held = self._state.permissions.get(APPLICATION_ID, ORDINARY_PERMISSIONS)
        if not message.sent_by_bot and message.guild_id is None:
            raise ApiError.from_code(50003)
        if not message.sent_by_bot and not held & MANAGE_MESSAGES:
            raise ApiError.from_code(50013)
        self._state.messages.delete(message)
        await self._state.events.send_message_delete(message)
        return no_content()

    async def _react(self, request: web.Request) -> web.Response:
        await self._state.reactions.add_own(self._message(request), request.match_info["emoji"])
        return no_content()

    async def _unreact(self, request: web.Request) -> web.Response:
        user = request.match_info["user"]
        user_id = APPLICATION_ID if user == "@me" else int(user)
        emoji = request.match_info["emoji"]
        await self._state.reactions.remove_by_bot(self._message(request), emoji, user_id=user_id)
        return no_content()

    async def _clear_reactions(self, request: web.Request) -> web.Response:
        await self._state.reactions.clear_by_bot(self._message(request), request.match_info.get("emoji"))
        return no_content()

    async def _list_reactions(self, request: web.Request) -> web.Response:
        users = sorted(self._message(request).reactions.get(request.match_info["emoji"], ()))
        after, limit = int(request.query.get("after", 0)), int(request.query.get("limit", 25))
        return json_response([person(user_id) for user_id in users if user_id > after][:limit])

    def _message(self, request: web.Request) -> Message:
        return self._state.messages.find_public(path_id(request, "message"), path_id(request, "channel"))

    async def _form(self, request: web.Request) -> Form:
        config = self._state.config
        direct = self._state.channels.guild_id(path_id(request, "channel")) is None
        limit = min(config.file_limit, FILE_LIMIT) if direct else config.file_limit  # no boosts in a DM
        return await read_form(request, limit=limit, keep=config.keep_files, known=config.known_file)


def _visible_payload(message: Message) -> Json:
    """Without the privileged message content intent, a bot sees only the content of its own guild messages."""
    if message.sent_by_bot or message.guild_id is None:
        return message.payload()
    return message.payload() | {"content": "", "attachments": [], "embeds": [], "components": []}
