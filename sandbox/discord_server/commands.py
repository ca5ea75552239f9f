"""The commands a bot has registered, and the data of an interaction that uses one."""

from __future__ import annotations

import re
from collections import Counter
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

from sandbox.discord_server.api_errors import Refusal, invalid_form
from sandbox.discord_server.components import Place, check_text
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
    """Global commands stand under None, the others under their guild."""

    def __init__(self, ids: Snowflakes) -> None:
        self._ids = ids
        self._by_place: dict[int | None, list[Json]] = {}

    def all(self) -> list[Json]:
        return [command for commands in self._by_place.values() for command in commands]

    def at(self, guild_id: int | None) -> list[Json]:
        return list(self._by_place.get(guild_id, ()))

    def overwrite(self, guild_id: int | None, given: Iterable[Json]) -> list[Json]:
        """All or nothing."""
        given = list(given)
        for index, command in enumerate(given):
            _check(command, (index,))
        _check_together(given)
        self._by_place[guild_id] = [self._registered(guild_id, command) for command in given]
        return self.at(guild_id)

    def add(self, guild_id: int | None, given: Json) -> Json:
        _check(given, ())
        command = self._registered(guild_id, given)
        others = [known for known in self.at(guild_id) if _key(known) != _key(command)]
        _check_together([*others, command])
        self._by_place[guild_id] = [*others, command]
        return command

    def named(self, name: str, guild_id: int | None, *, kind: int = SLASH) -> Json:
        """An unregistered one is made up, so that a test may go without a sync."""
        for command in (*self.at(guild_id), *self.at(None)):
            if _key(command) == (kind, name):
                return command
        return {"id": str(self._ids.fresh()), "name": name, "options": []}

    def menu(self, name: str, message: Message) -> Json:
        """The data of a message's context menu."""
        command = self.named(name, message.guild_id, kind=MESSAGE_MENU)
        place = {"guild_id": command["guild_id"]} if "guild_id" in command else {}
        target = {"target_id": str(message.id), "resolved": {"messages": {str(message.id): message.payload()}}}
        return {"id": command["id"], "name": name, "type": MESSAGE_MENU} | place | target

    def _registered(self, guild_id: int | None, given: Json) -> Json:
        known = next((known for known in self.at(guild_id) if _key(known) == _key(given)), None)
        place = {} if guild_id is None else {"guild_id": str(guild_id)}
        defaults = {"type": 1, "description": "", "options": [], "default_member_permissions": None, "nsfw": False}
        own = {
            "id": known["id"] if known else str(self._ids.fresh()),
            "application_id": str(APPLICATION_ID),
            "version": str(self._ids.fresh()),
            "integration_types": given.get("integration_types") or [0],
        }
        return defaults | given | own | place


class Usage:
    """One use of a slash command: options with their types, and what they resolve to."""

    def __init__(self, commands: Commands, ids: Snowflakes, origin: Origin) -> None:
        self._commands = commands
        self._ids = ids
        self._origin = origin
        self._resolved: dict[str, Json] = {}

    def data(self, name: str, options: Mapping[str, Option], *, focused: str | None = None) -> Json:
        """`name` may go on to a subcommand: "my-data export"."""
        first, *rest = name.split()
        command = self._commands.named(first, self._origin.guild_id)
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
        place = {"guild_id": command["guild_id"]} if "guild_id" in command else {}
        resolved = {"resolved": self._resolved} if self._resolved else {}
        return {"id": command["id"], "name": first, "type": 1, "options": given} | place | resolved

    def _option(self, name: str, value: Option, declared: int | None) -> Json:
        kind = declared or _guess(value)
        if kind in (USER, CHANNEL, ROLE, ATTACHMENT):
            value = self._resolve(kind, value)
        return {"name": name, "type": kind, "value": value}

    def _resolve(self, kind: int, value: Option) -> str:
        if isinstance(value, Upload):
            number = self._ids.fresh()
            self._note("attachments", number, value.payload(number, APPLICATION_ID))
            return str(number)
        number = int(value)
        if kind == USER:
            self._note("users", number, user(number))
            self._note("members", number, member() | {"permissions": str(self._origin.permissions)})
        elif kind == ROLE:
            self._note("roles", number, role(number))
        else:
            shown = text_channel(number, self._origin.guild_id or 0)
            self._note("channels", number, shown | {"permissions": str(self._origin.permissions)})
        return str(number)

    def _note(self, table: str, number: int, payload: Json) -> None:
        self._resolved.setdefault(table, {})[str(number)] = payload


def _key(command: Json) -> tuple[int, str]:
    return command.get("type", 1), command["name"]


def _check(command: Json, place: Place) -> None:
    """The name of a menu is free; it has neither description nor options."""
    check_text(command, "name", place, least=1, most=32)
    if command.get("type", SLASH) == SLASH:
        check_text(command, "description", place, least=1, most=100)
        if SLASH_NAME.fullmatch(command["name"]) is None or command["name"] != command["name"].lower():
            words = "Command name is invalid"
            raise invalid_form(*place, "name", code="APPLICATION_COMMAND_INVALID_NAME", message=words)
        return
    for key in ("description", "options"):
        if command.get(key):
            words = "Context menu commands cannot have it"
            raise invalid_form(*place, key, code="APPLICATION_COMMAND_FIELD_NOT_ALLOWED", message=words)


def _check_together(commands: Sequence[Json]) -> None:
    keys = Counter(_key(command) for command in commands)
    if keys and max(keys.values()) > 1:
        words = "Application command names must be unique"
        raise invalid_form(code="APPLICATION_COMMANDS_DUPLICATE_NAME", message=words)
    kinds = Counter(kind for kind, _ in keys)
    if any(kinds[kind] > most for kind, most in LIMITS.items()):
        raise Refusal.known(30032)


def _guess(value: Option) -> int:
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
