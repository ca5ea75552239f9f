"""Modal submissions. They need only the stored modal, so a modal can be submitted at any later time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from sandbox.discord_server.components import SELECTS, TEXT_LIMIT, ComponentType, assign_ids, walk_components
from sandbox.discord_server.files import Upload
from sandbox.discord_server.payloads import APPLICATION_ID, Json, Snowflakes

Value: TypeAlias = str | bool | Upload | Sequence[str] | Sequence[Upload]


class Submission:
    """The values that a user submits. An input without a value keeps its prefilled value.

    Raises LookupError for an input that the modal does not have, and ValueError for a value that Discord's client
    does not let a user submit.
    """

    def __init__(self, modal: Json, ids: Snowflakes) -> None:
        self._modal = modal
        self._ids = ids
        self._attachments: dict[str, Json] = {}

    def data(self, values: Mapping[str, Value], files: Sequence[Upload]) -> Json:
        """`files` are the values of the modal's only FileUpload."""
        given = dict(values)
        if files:
            given[self._upload_field()] = files
        components = [self._component_data(component, given) for component in assign_ids(self._modal["components"])]
        if given:
            raise LookupError(f"no input {', '.join(given)} in the modal {self._modal['custom_id']!r}")
        resolved = {"resolved": {"attachments": self._attachments}} if self._attachments else {}
        return {"custom_id": self._modal["custom_id"], "components": components} | resolved

    def _upload_field(self) -> str:
        inputs = walk_components(self._modal["components"])
        [field] = [field["custom_id"] for field in inputs if field["type"] == ComponentType.FILE_UPLOAD]
        return str(field)

    def _component_data(self, component: Json, given: dict[str, Value]) -> Json:
        shown = {"type": component["type"], "id": component["id"]}
        match component["type"]:
            case ComponentType.LABEL:
                return shown | {"component": self._input(component["component"], given)}
            case ComponentType.ROW:
                return shown | {"components": [self._input(field, given) for field in component["components"]]}
        return shown

    def _input(self, field: Json, given: dict[str, Value]) -> Json:
        value = given.pop(field["custom_id"], None)
        shown = {"type": field["type"], "id": field["id"], "custom_id": field["custom_id"]}
        match field["type"]:
            case ComponentType.TEXT_INPUT:
                return shown | {"value": _text_value(field, value)}
            case ComponentType.FILE_UPLOAD:
                return shown | {"values": [self._resolve(file) for file in _file_values(field, value)]}
            case ComponentType.CHECKBOX:
                return shown | {"value": bool(field.get("default") if value is None else value)}
            case ComponentType.RADIO_GROUP:
                return shown | {"value": next(iter(_chosen_values(field, value)), None)}
        return shown | {"values": _chosen_values(field, value)}

    def _resolve(self, file: Upload) -> str:
        number = self._ids.fresh()
        self._attachments[str(number)] = file.payload(number, APPLICATION_ID)
        return str(number)


def _text_value(field: Json, value: Value | None) -> str:
    text = field.get("value") or "" if value is None else value
    if not isinstance(text, str):
        raise TypeError(f"{field['custom_id']} accepts only text")
    minimum = max(field.get("min_length") or 0, int(field.get("required", True)))
    if (text or field.get("required", True)) and not minimum <= len(text) <= (field.get("max_length") or TEXT_LIMIT):
        raise ValueError(f"{field['custom_id']} does not accept {len(text)} characters")
    return text


def _file_values(field: Json, value: Value | None) -> list[Upload]:
    given = [value] if isinstance(value, Upload) else _as_sequence(value)
    files = [file for file in given if isinstance(file, Upload)]
    if len(files) < len(given):
        raise TypeError(f"{field['custom_id']} accepts only uploads")
    _check_number(field, len(files))
    return files


def _chosen_values(field: Json, value: Value | None) -> list[str]:
    """The chosen options, or the prefilled ones if nothing was chosen."""
    options = field.get("options", [])
    if value is None:
        chosen = [str(option["value"]) for option in options if option.get("default")]
    else:
        chosen = [str(one) for one in ([value] if isinstance(value, str) else _as_sequence(value))]
    check_choice(field, chosen)
    return chosen


def check_choice(field: Json, chosen: Sequence[str]) -> None:
    """Raises ValueError for an option that the select does not offer, and for too few or too many options."""
    offered = {option["value"] for option in field.get("options", [])}
    if (offered or field["type"] not in SELECTS) and not offered.issuperset(chosen):
        raise ValueError(f"{field['custom_id']} does not offer {sorted(set(chosen) - offered)}")
    _check_number(field, len(chosen))


def _check_number(field: Json, number: int) -> None:
    """An optional modal input accepts zero values."""
    several = len(field.get("options", [])) if field["type"] == ComponentType.CHECKBOX_GROUP else 1
    minimum, maximum = field.get("min_values"), field.get("max_values") or several
    if number == 0 and not field.get("required", True):
        return
    if not (1 if minimum is None else minimum) <= number <= maximum:
        raise ValueError(f"{field['custom_id']} does not accept {number} values")


def _as_sequence(value: Value | None) -> Sequence[object]:
    return value if isinstance(value, Sequence) else []
