"""User actions: commands, context menus, buttons, modals, reactions, messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from sandbox.discord_server.commands import CommandInvocation, Option
from sandbox.discord_server.components import ComponentType, find_component
from sandbox.discord_server.interactions import AUTOCOMPLETE, COMMAND, COMPONENT, MODAL_SUBMIT, Interaction
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
    from sandbox.discord_server.guilds import Guilds
    from sandbox.discord_server.messages import Message
    from sandbox.discord_server.state import ServerState


class People:
    """Interactions raise NotConnected if no bot is connected; reactions and messages work without one."""

    def __init__(self, state: ServerState, ids: Snowflakes) -> None:
        self._state = state
        self._ids = ids

    @property
    def permissions(self) -> dict[int, int]:
        """Permissions by user id, the bot's under APPLICATION_ID. Other users have ordinary permissions."""
        return self._state.permissions

    @property
    def guilds(self) -> Guilds:
        """The roles, members and overwrites that REST shows, and the users who closed their DMs."""
        return self._state.guilds

    async def slash(
        self, name: str, *, options: Mapping[str, Option] | None = None, **origin: Unpack[OriginFields]
    ) -> Interaction:
        """A user runs a slash command; "my-data export" runs a subcommand."""
        where = self._origin(origin)
        return await self._send(COMMAND, where, self._invocation(where).data(name, options or {}))

    async def autocomplete(
        self, name: str, focused: str, *, options: Mapping[str, Option], **origin: Unpack[OriginFields]
    ) -> Interaction:
        """A user types into the option `focused`. The choices arrive in `ack["data"]["choices"]`."""
        where = self._origin(origin)
        return await self._send(AUTOCOMPLETE, where, self._invocation(where).data(name, options, focused=focused))

    async def context_menu(self, name: str, message: Message, **origin: Unpack[OriginFields]) -> Interaction:
        """A user picks one of the bot's commands from a message's context menu."""
        data = self._state.commands.menu_data(name, message)
        return await self._send(COMMAND, self._origin(_origin_of(message) | origin), data)

    async def click(
        self, message: Message, custom_id: str, *, values: tuple[str, ...] = (), **origin: Unpack[OriginFields]
    ) -> Interaction:
        """A user uses a component of a message; raises LookupError if it is missing or disabled."""
        component = find_component(custom_id, message.components)
        data = {"custom_id": custom_id, "component_type": component["type"], "id": component["id"]}
        if values:
            data["values"] = list(values)
        return await self._send(COMPONENT, self._origin(_origin_of(message) | origin), data, source=message)

    async def select(
        self, message: Message, custom_id: str, *values: str, **origin: Unpack[OriginFields]
    ) -> Interaction:
        """A user chooses from a string select; raises ValueError for an option that it does not offer."""
        component = find_component(custom_id, message.components)
        if component["type"] != ComponentType.STRING_SELECT:
            raise LookupError(f"{custom_id!r} is not a string select")
        check_choice(component, values)
        data = {"custom_id": custom_id, "component_type": component["type"], "id": component["id"]}
        where = self._origin(_origin_of(message) | origin)
        return await self._send(COMPONENT, where, data | {"values": list(values)}, source=message)

    async def submit(
        self,
        interaction: Interaction,
        values: Mapping[str, Value] | None = None,
        *,
        files: Sequence[Upload] = (),
        **origin: Unpack[OriginFields],
    ) -> Interaction:
        """A user submits the modal that the bot opened for `interaction`. A modal can be submitted repeatedly.

        The default user is the one who opened it. Inputs without a value keep their prefilled value.
        """
        if interaction.modal is None:
            raise LookupError(f"{interaction} opened no modal")
        data = Submission(interaction.modal, self._ids).data(values or {}, files)
        where = self._origin(_same_origin(interaction.origin, origin))
        return await self._send(MODAL_SUBMIT, where, data, source=interaction.source, parent=interaction)

    async def react(
        self,
        message: Message,
        emoji: str,
        *,
        user_id: int = USER_ID,
        bot: bool = False,
        roles: tuple[int, ...] = (),
    ) -> None:
        """Sends the event every time, even if the user has already added this reaction."""
        guilds = self._state.guilds
        bot, roles = bot or user_id in guilds.bots, roles or guilds.members.get(user_id, ())
        await self._state.reactions.add(_require_public(message), emoji, user_id=user_id, bot=bot, roles=roles)

    async def unreact(self, message: Message, emoji: str, *, user_id: int = USER_ID) -> None:
        await self._state.reactions.remove(_require_public(message), emoji, user_id=user_id)

    def say(
        self,
        content: str = "",
        *,
        files: Sequence[Upload] = (),
        reply_to: Message | None = None,
        **origin: Unpack[OriginFields],
    ) -> Message:
        """A user posts a message. The bot receives no event for it."""
        where = self._origin(origin)
        self._state.channels.remember(where)
        return self._state.messages.say(where, content, files, reply_to)

    def direct(self, user_id: int) -> list[Message]:
        """The direct messages between the bot and a user, oldest first."""
        state = self._state
        return [m for m in state.messages.by_id.values() if state.channels.recipient(m.channel_id) == user_id]

    def _origin(self, fields: OriginFields) -> Origin:
        """Uses the given permissions, else the user's own, else ordinary permissions."""
        channels = self._state.channels
        if fields.get("guild_id", GUILD_ID) is None:
            recipient = channels.recipient(fields["channel_id"]) if "channel_id" in fields else None
            user_id = fields.setdefault("user_id", recipient or USER_ID)
            fields.setdefault("channel_id", channels.direct(user_id))
        user_id = fields.setdefault("user_id", USER_ID)
        fields.setdefault("permissions", self.permissions.get(user_id, ORDINARY_PERMISSIONS))
        fields.setdefault("app_permissions", self.permissions.get(APPLICATION_ID, ORDINARY_PERMISSIONS))
        fields.setdefault("roles", self.guilds.members.get(user_id, ()))
        return Origin(**fields)

    def _invocation(self, origin: Origin) -> CommandInvocation:
        return CommandInvocation(self._state.commands, self._ids, origin)

    async def _send(
        self,
        kind: int,
        origin: Origin,
        data: Json,
        *,
        source: Message | None = None,
        parent: Interaction | None = None,
    ) -> Interaction:
        """Raises NotConnected if no bot is connected."""
        self._state.channels.remember(origin)
        interaction = self._state.interactions.create(kind, origin, data, source=source, parent=parent)
        await self._state.gateway.dispatch("INTERACTION_CREATE", interaction.payload(), guild_id=origin.guild_id)
        return interaction


def _origin_of(message: Message) -> OriginFields:
    return OriginFields(guild_id=message.guild_id, channel_id=message.channel_id)


def _same_origin(before: Origin, now: OriginFields) -> OriginFields:
    """The same place and, unless `now` names another one, the same user with the same permissions."""
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


def _require_public(message: Message) -> Message:
    if message.ephemeral:
        raise LookupError(f"users cannot react to the ephemeral {message}")
    return message
