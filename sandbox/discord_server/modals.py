"""Modals as a person fills them in: only what was stored of the modal is needed, however long ago that was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from sandbox.discord_server.components import SELECTS, TEXT_LIMIT, Kind, each_component, numbered
from sandbox.discord_server.files import Upload
from sandbox.discord_server.payloads import APPLICATION_ID, Json, Snowflakes

Value: TypeAlias = str | bool | Upload | Sequence[str] | Sequence[Upload]


class Submission:
    """One person's values; what is left out stays as the bot has prefilled it.

    LookupError for an input the modal has not, ValueError for what its client would not let a person send.
    """

    def __init__(self, modal: Json, ids: Snowflakes) -> None:
        self._modal = modal
        self._ids = ids
        self._attachments: dict[str, Json] = {}

    def data(self, values: Mapping[str, Value], files: Sequence[Upload]) -> Json:
        """`files` go into the one FileUpload of the modal."""
        given = dict(values)
        if files:
            given[self._upload_field()] = files
        components = [self._top(component, given) for component in numbered(self._modal["components"])]
        if given:
            raise LookupError(f"no input {', '.join(given)} in the modal {self._modal['custom_id']!r}")
        resolved = {"resolved": {"attachments": self._attachments}} if self._attachments else {}
        return {"custom_id": self._modal["custom_id"], "components": components} | resolved

    def _upload_field(self) -> str:
        inputs = each_component(self._modal["components"])
        [field] = [field["custom_id"] for field in inputs if field["type"] == Kind.FILE_UPLOAD]
        return str(field)

    def _top(self, component: Json, given: dict[str, Value]) -> Json:
        shown = {"type": component["type"], "id": component["id"]}
        match component["type"]:
            case Kind.LABEL:
                return shown | {"component": self._input(component["component"], given)}
            case Kind.ROW:
                return shown | {"components": [self._input(field, given) for field in component["components"]]}
        return shown

    def _input(self, field: Json, given: dict[str, Value]) -> Json:
        value = given.pop(field["custom_id"], None)
        shown = {"type": field["type"], "id": field["id"], "custom_id": field["custom_id"]}
        match field["type"]:
            case Kind.TEXT_INPUT:
                return shown | {"value": _text(field, value)}
            case Kind.FILE_UPLOAD:
                return shown | {"values": [self._resolved(file) for file in _files(field, value)]}
            case Kind.CHECKBOX:
                return shown | {"value": bool(field.get("default") if value is None else value)}
            case Kind.RADIO_GROUP:
                return shown | {"value": next(iter(_chosen(field, value)), None)}
        return shown | {"values": _chosen(field, value)}

    def _resolved(self, file: Upload) -> str:
        number = self._ids.fresh()
        self._attachments[str(number)] = file.payload(number, APPLICATION_ID)
        return str(number)


def _text(field: Json, value: Value | None) -> str:
    text = field.get("value") or "" if value is None else value
    if not isinstance(text, str):
        raise TypeError(f"{field['custom_id']} takes text")
    least = max(field.get("min_length") or 0, int(field.get("required", True)))
    if (text or field.get("required", True)) and not least <= len(text) <= (field.get("max_length") or TEXT_LIMIT):
        raise ValueError(f"{field['custom_id']} does not take {len(text)} characters")
    return text


def _files(field: Json, value: Value | None) -> list[Upload]:
    given = [value] if isinstance(value, Upload) else _sequence(value)
    files = [file for file in given if isinstance(file, Upload)]
    if len(files) < len(given):
        raise TypeError(f"{field['custom_id']} takes uploads")
    _check_number(field, len(files))
    return files


def _chosen(field: Json, value: Value | None) -> list[str]:
    """The prefilled options, unless something was chosen."""
    options = field.get("options", [])
    if value is None:
        chosen = [str(option["value"]) for option in options if option.get("default")]
    else:
        chosen = [str(one) for one in ([value] if isinstance(value, str) else _sequence(value))]
    check_choice(field, chosen)
    return chosen


def check_choice(field: Json, chosen: Sequence[str]) -> None:
    """Raises ValueError for what a select does not offer, or for too few or too many."""
    offered = {option["value"] for option in field.get("options", [])}
    if (offered or field["type"] not in SELECTS) and not offered.issuperset(chosen):
        raise ValueError(f"{field['custom_id']} does not offer {sorted(set(chosen) - offered)}")
    _check_number(field, len(chosen))


def _check_number(field: Json, number: int) -> None:
    """None at all is fine where an input of a modal need not be filled in."""
    several = len(field.get("options", [])) if field["type"] == Kind.CHECKBOX_GROUP else 1
    least, most = field.get("min_values"), field.get("max_values") or several
    if number == 0 and not field.get("required", True):
        return
    if not (1 if least is None else least) <= number <= most:
        raise ValueError(f"{field['custom_id']} does not take {number} values")


def _sequence(value: Value | None) -> Sequence[object]:
    return value if isinstance(value, Sequence) else []
