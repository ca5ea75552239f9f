"""The commands that a bot has registered, and the data of interactions that use them."""

from __future__ import annotations

import re
from collections import Counter
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

from sandbox.discord_server.api_errors import ApiError, invalid_form
from sandbox.discord_server.components import FieldPath, check_text
from sandbox.discord_server.files import Upload
from sandbox.discord_server.payloads import APPLICATION_ID, Json, Origin, Snowflakes, member, role, text_channel, user

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sandbox.discord_server.messages import Message

Option: TypeAlias = str | int | float | bool | Upload

SLASH, USER_MENU, MESSAGE_MENU = 1, 2, 3
SUBCOMMAND, GROUP = 1, 2
SLASH_NAME = re.compile(r"[-_'\w]{1,32}")
LIMITS: Mapping[int, int] = MappingProxyType({SLASH: 100, USER_MENU: 15, MESSAGE_MENU: 15})
STRING, INTEGER, BOOLEAN, USER, CHANNEL, ROLE, NUMBER, ATTACHMENT = 3, 4, 5, 6, 7, 8, 10, 11


class Commands:
    """Registered commands by guild. Global commands have the guild None."""

    def __init__(self, ids: Snowflakes) -> None:
        self._ids = ids
        self._by_scope: dict[int | None, list[Json]] = {}

    def all(self) -> list[Json]:
        return [command for commands in self._by_scope.values() for command in commands]

    def for_guild(self, guild_id: int | None) -> list[Json]:
        return list(self._by_scope.get(guild_id, ()))

    def overwrite(self, guild_id: int | None, given: Iterable[Json]) -> list[Json]:
        """Replaces every command, or none if one of them is invalid."""
        given = list(given)
        for index, command in enumerate(given):
            _check(command, (index,))
        _check_set(given)
        self._by_scope[guild_id] = [self._register(guild_id, command) for command in given]
        return self.for_guild(guild_id)

    def add(self, guild_id: int | None, given: Json) -> Json:
        _check(given, ())
        command = self._register(guild_id, given)
        others = [known for known in self.for_guild(guild_id) if _key(known) != _key(command)]
        _check_set([*others, command])
        self._by_scope[guild_id] = [*others, command]
        return command

    def find(self, name: str, guild_id: int | None, *, kind: int = SLASH) -> Json:
        """Returns a placeholder for an unregistered command, so that a test can skip the sync."""
        for command in (*self.for_guild(guild_id), *self.for_guild(None)):
            if _key(command) == (kind, name):
                return command
        return {"id": str(self._ids.fresh()), "name": name, "options": []}

    def menu_data(self, name: str, message: Message) -> Json:
        """The data of a message context menu command."""
        command = self.find(name, message.guild_id, kind=MESSAGE_MENU)
        scope = {"guild_id": command["guild_id"]} if "guild_id" in command else {}
        target = {"target_id": str(message.id), "resolved": {"messages": {str(message.id): message.payload()}}}
        return {"id": command["id"], "name": name, "type": MESSAGE_MENU} | scope | target

    def _register(self, guild_id: int | None, given: Json) -> Json:
        known = next((known for known in self.for_guild(guild_id) if _key(known) == _key(given)), None)
        scope = {} if guild_id is None else {"guild_id": str(guild_id)}
        defaults = {"type": 1, "description": "", "options": [], "default_member_permissions": None, "nsfw": False}
        own = {
            "id": known["id"] if known else str(self._ids.fresh()),
            "application_id": str(APPLICATION_ID),
            "version": str(self._ids.fresh()),
            "integration_types": given.get("integration_types") or [0],
        }
        return defaults | given | own | scope


class CommandInvocation:
    """One use of a slash command: its options, their types, and the objects they resolve to."""

    def __init__(self, commands: Commands, ids: Snowflakes, origin: Origin) -> None:
        self._commands = commands
        self._ids = ids
        self._origin = origin
        self._resolved: dict[str, Json] = {}

    def data(self, name: str, options: Mapping[str, Option], *, focused: str | None = None) -> Json:
        """`name` can include a subcommand: "my-data export"."""
        first, *rest = name.split()
        command = self._commands.find(first, self._origin.guild_id)
        definitions, kinds = command["options"], []
        for word in rest:
            found: Json = next((known for known in definitions if known["name"] == word), {})
            kinds.append((word, found.get("type", SUBCOMMAND)))
            definitions = found.get("options", [])
        types = {known["name"]: known["type"] for known in definitions}
        given = [self._option(key, value, types.get(key)) for key, value in options.items()]
        for option in given:
            if option["name"] == focused:
                option["focused"] = True
        for word, kind in reversed(kinds):
            given = [{"name": word, "type": kind, "options": given}]
        scope = {"guild_id": command["guild_id"]} if "guild_id" in command else {}
        resolved = {"resolved": self._resolved} if self._resolved else {}
        return {"id": command["id"], "name": first, "type": 1, "options": given} | scope | resolved

    def _option(self, name: str, value: Option, declared: int | None) -> Json:
        kind = declared or _guess_type(value)
        if kind in (USER, CHANNEL, ROLE, ATTACHMENT):
            value = self._resolve(kind, value)
        return {"name": name, "type": kind, "value": value}

    def _resolve(self, kind: int, value: Option) -> str:
        if isinstance(value, Upload):
            number = self._ids.fresh()
            self._add_resolved("attachments", number, value.payload(number, APPLICATION_ID))
            return str(number)
        number = int(value)
        if kind == USER:
            self._add_resolved("users", number, user(number))
            self._add_resolved("members", number, member() | {"permissions": str(self._origin.permissions)})
        elif kind == ROLE:
            self._add_resolved("roles", number, role(number))
        else:
            shown = text_channel(number, self._origin.guild_id or 0)
            self._add_resolved("channels", number, shown | {"permissions": str(self._origin.permissions)})
        return str(number)

    def _add_resolved(self, table: str, number: int, payload: Json) -> None:
        self._resolved.setdefault(table, {})[str(number)] = payload


def _key(command: Json) -> tuple[int, str]:
    return command.get("type", 1), command["name"]


def _check(command: Json, path: FieldPath) -> None:
    """A context menu command can have any name, but no description and no options."""
    check_text(command, "name", path, minimum=1, maximum=32)
    if command.get("type", SLASH) == SLASH:
        check_text(command, "description", path, minimum=1, maximum=100)
        if SLASH_NAME.fullmatch(command["name"]) is None or command["name"] != command["name"].lower():
            message = "Command name is invalid"
            raise invalid_form(*path, "name", code="APPLICATION_COMMAND_INVALID_NAME", message=message)
        return
    for key in ("description", "options"):
        if command.get(key):
            message = "Context menu commands cannot have this field"
            raise invalid_form(*path, key, code="APPLICATION_COMMAND_FIELD_NOT_ALLOWED", message=message)


def _check_set(commands: Sequence[Json]) -> None:
    keys = Counter(_key(command) for command in commands)
    if keys and max(keys.values()) > 1:
        message = "Application command names must be unique"
        raise invalid_form(code="APPLICATION_COMMANDS_DUPLICATE_NAME", message=message)
    kinds = Counter(kind for kind, _ in keys)
    if any(kinds[kind] > maximum for kind, maximum in LIMITS.items()):
        raise ApiError.from_code(30032)


def _guess_type(value: Option) -> int:
    match value:
        case Upload():
            return ATTACHMENT
        case bool():
            return BOOLEAN
        case int():
            return INTEGER
        case float():
            return NUMBER
    return STRING
