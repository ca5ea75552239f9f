"""The commands a bot has registered, and the data of an interaction that uses one."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from sandbox.wire_files import Upload
from sandbox.wire_scene import APPLICATION_ID, Json, Origin, Snowflakes, member, role, text_channel, user

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Option: TypeAlias = str | int | float | bool | Upload

SUBCOMMAND, GROUP = 1, 2
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
        self._by_place[guild_id] = [self._registered(guild_id, command) for command in given]
        return self.at(guild_id)

    def add(self, guild_id: int | None, given: Json) -> Json:
        command = self._registered(guild_id, given)
        others = [known for known in self.at(guild_id) if _key(known) != _key(command)]
        self._by_place[guild_id] = [*others, command]
        return command

    def named(self, name: str, guild_id: int | None) -> Json:
        """An unregistered one is made up, so that a test may go without a sync."""
        for command in (*self.at(guild_id), *self.at(None)):
            if _key(command) == (1, name):
                return command
        return {"id": str(self._ids.fresh()), "name": name, "options": []}

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
