"""What people do: commands, menus, buttons, forms, reactions, messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from sandbox.discord_server.commands import Option, Usage
from sandbox.discord_server.components import Kind, component_with
from sandbox.discord_server.interactions import AUTOCOMPLETE, COMMAND, COMPONENT, SUBMISSION, Interaction
from sandbox.discord_server.modals import Submission, Value, check_choice
from sandbox.discord_server.payloads import (
    APPLICATION_ID,
    GUILD_ID,
    ORDINARY_PERMISSIONS,
    USER_ID,
    Json,
    Origin,
    OriginFields,
    Snowflakes,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sandbox.discord_server.files import Upload
    from sandbox.discord_server.guilds import Society
    from sandbox.discord_server.messages import Message
    from sandbox.discord_server.state import Rooms


class People:
    """Interactions raise NotConnected if no bot listens; reactions and messages happen all the same."""

    def __init__(self, rooms: Rooms, ids: Snowflakes) -> None:
        self._rooms = rooms
        self._ids = ids

    @property
    def permissions(self) -> dict[int, int]:
        """What each person may do, and the bot under APPLICATION_ID; who is not in it is an ordinary member."""
        return self._rooms.permissions

    @property
    def society(self) -> Society:
        """The guilds' roles, members and overwrites, as REST shows them, and who has closed their direct messages."""
        return self._rooms.society

    async def slash(
        self, name: str, *, options: Mapping[str, Option] | None = None, **origin: Unpack[OriginFields]
    ) -> Interaction:
        """Someone uses a command; "my-data export" means a subcommand."""
        where = self._origin(origin)
        return await self._send(COMMAND, where, self._usage(where).data(name, options or {}))

    async def autocomplete(
        self, name: str, focused: str, *, options: Mapping[str, Option], **origin: Unpack[OriginFields]
    ) -> Interaction:
        """Someone types into the option `focused`; the choices come in `ack["data"]["choices"]`."""
        where = self._origin(origin)
        return await self._send(AUTOCOMPLETE, where, self._usage(where).data(name, options, focused=focused))

    async def context_menu(self, name: str, message: Message, **origin: Unpack[OriginFields]) -> Interaction:
        """Someone picks an app's command from the menu of a message, anyone's."""
        data = self._rooms.commands.menu(name, message)
        return await self._send(COMMAND, self._origin(_at(message) | origin), data)

    async def click(
        self, message: Message, custom_id: str, *, values: tuple[str, ...] = (), **origin: Unpack[OriginFields]
    ) -> Interaction:
        """Someone uses a component of a message; LookupError if the message has no such component in use."""
        component = component_with(custom_id, message.components)
        data = {"custom_id": custom_id, "component_type": component["type"], "id": component["id"]}
        if values:
            data["values"] = list(values)
        return await self._send(COMPONENT, self._origin(_at(message) | origin), data, source=message)

    async def select(
        self, message: Message, custom_id: str, *values: str, **origin: Unpack[OriginFields]
    ) -> Interaction:
        """Someone chooses in a string select; ValueError for what it does not offer."""
        component = component_with(custom_id, message.components)
        if component["type"] != Kind.STRING_SELECT:
            raise LookupError(f"{custom_id!r} is no string select")
        check_choice(component, values)
        data = {"custom_id": custom_id, "component_type": component["type"], "id": component["id"]}
        where = self._origin(_at(message) | origin)
        return await self._send(COMPONENT, where, data | {"values": list(values)}, source=message)

    async def submit(
        self,
        interaction: Interaction,
        values: Mapping[str, Value] | None = None,
        *,
        files: Sequence[Upload] = (),
        **origin: Unpack[OriginFields],
    ) -> Interaction:
        """Someone sends the modal that `interaction` was answered with, as often as they like.

        By the same person unless told otherwise; inputs left out stay as they were prefilled.
        """
        if interaction.modal is None:
            raise LookupError(f"no modal was opened by {interaction}")
        data = Submission(interaction.modal, self._ids).data(values or {}, files)
        where = self._origin(_from(interaction.origin, origin))
        return await self._send(SUBMISSION, where, data, source=interaction.source, parent=interaction)

    async def react(
        self,
        message: Message,
        emoji: str,
        *,
        user_id: int = USER_ID,
        bot: bool = False,
        roles: tuple[int, ...] = (),
    ) -> None:
        """The event is sent each time, even if the reaction is there already."""
        society = self._rooms.society
        bot, roles = bot or user_id in society.bots, roles or society.members.get(user_id, ())
        await self._rooms.reactions.add(_seen(message), emoji, user_id=user_id, bot=bot, roles=roles)

    async def unreact(self, message: Message, emoji: str, *, user_id: int = USER_ID) -> None:
        await self._rooms.reactions.remove(_seen(message), emoji, user_id=user_id)

    def say(
        self,
        content: str = "",
        *,
        files: Sequence[Upload] = (),
        reply_to: Message | None = None,
        **origin: Unpack[OriginFields],
    ) -> Message:
        """A person's own message; the bot is not told of it."""
        where = self._origin(origin)
        self._rooms.channels.learn(where)
        return self._rooms.messages.say(where, content, files, reply_to)

    def direct(self, user_id: int) -> list[Message]:
        """What the bot and a person have written to each other, the oldest first."""
        rooms = self._rooms
        return [m for m in rooms.messages.by_id.values() if rooms.channels.partner(m.channel_id) == user_id]

    def _origin(self, fields: OriginFields) -> Origin:
        """Plain permissions, unless they are set for the person or for this once."""
        channels = self._rooms.channels
        if fields.get("guild_id", GUILD_ID) is None:
            partner = channels.partner(fields["channel_id"]) if "channel_id" in fields else None
            user_id = fields.setdefault("user_id", partner or USER_ID)
            fields.setdefault("channel_id", channels.direct(user_id))
        who = fields.setdefault("user_id", USER_ID)
        fields.setdefault("permissions", self.permissions.get(who, ORDINARY_PERMISSIONS))
        fields.setdefault("app_permissions", self.permissions.get(APPLICATION_ID, ORDINARY_PERMISSIONS))
        fields.setdefault("roles", self.society.members.get(who, ()))
        return Origin(**fields)

    def _usage(self, origin: Origin) -> Usage:
        return Usage(self._rooms.commands, self._ids, origin)

    async def _send(
        self,
        kind: int,
        origin: Origin,
        data: Json,
        *,
        source: Message | None = None,
        parent: Interaction | None = None,
    ) -> Interaction:
        """Raises NotConnected if no bot listens."""
        self._rooms.channels.learn(origin)
        interaction = self._rooms.interactions.open(kind, origin, data, source=source, parent=parent)
        await self._rooms.gateway.dispatch("INTERACTION_CREATE", interaction.payload(), guild_id=origin.guild_id)
        return interaction


def _at(message: Message) -> OriginFields:
    return OriginFields(guild_id=message.guild_id, channel_id=message.channel_id)


def _from(before: Origin, now: OriginFields) -> OriginFields:
    """In the same place, and by the same person with the same rights unless it is another."""
    fields = OriginFields(
        user_id=before.user_id,
        guild_id=before.guild_id,
        channel_id=before.channel_id,
        app_permissions=before.app_permissions,
        locale=before.locale,
        attachment_size_limit=before.attachment_size_limit,
    )
    if now.get("user_id", before.user_id) == before.user_id:
        fields |= OriginFields(permissions=before.permissions, roles=before.roles)
    return fields | now


def _seen(message: Message) -> Message:
    if message.ephemeral:
        raise LookupError(f"nobody can react to the ephemeral {message}")
    return message
