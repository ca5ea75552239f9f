"""Components: Discord's rules for those of messages and of modals, their numbers, and how to walk them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import IntEnum
from itertools import count
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

from sandbox.discord_server.api_errors import Refusal, invalid_form
from sandbox.discord_server.payloads import Json

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

COMPONENT_LIMIT = 40
TEXT_LIMIT = 4000
ROW_WIDTH = 5
OPTION_LIMIT = 25
LINK, PREMIUM = 5, 6

Place: TypeAlias = tuple[str | int, ...]
Check: TypeAlias = Callable[[Json, Place], None]


class Kind(IntEnum):
    """What a component is."""

    ROW = 1
    BUTTON = 2
    STRING_SELECT = 3
    TEXT_INPUT = 4
    USER_SELECT = 5
    ROLE_SELECT = 6
    MENTIONABLE_SELECT = 7
    CHANNEL_SELECT = 8
    SECTION = 9
    TEXT = 10
    THUMBNAIL = 11
    GALLERY = 12
    FILE = 13
    SEPARATOR = 14
    CONTAINER = 17
    LABEL = 18
    FILE_UPLOAD = 19
    RADIO_GROUP = 21
    CHECKBOX_GROUP = 22
    CHECKBOX = 23


SELECTS = frozenset(
    {Kind.STRING_SELECT, Kind.USER_SELECT, Kind.ROLE_SELECT, Kind.MENTIONABLE_SELECT, Kind.CHANNEL_SELECT}
)
IN_CONTAINERS = frozenset({Kind.ROW, Kind.SECTION, Kind.TEXT, Kind.GALLERY, Kind.FILE, Kind.SEPARATOR})
IN_LAYOUTS = IN_CONTAINERS | {Kind.CONTAINER}
IN_LABELS = SELECTS | {Kind.TEXT_INPUT, Kind.FILE_UPLOAD, Kind.RADIO_GROUP, Kind.CHECKBOX_GROUP, Kind.CHECKBOX}


def check_message(components: list[Json], *, layout: bool) -> None:
    """`layout` is what the flag IS_COMPONENTS_V2 allows; without it there are only rows."""
    if not layout:
        check_each(components, ("components",), allowed={Kind.ROW}, most=5)
        _check_unique(components)
        return
    check_each(components, ("components",), allowed=IN_LAYOUTS, most=COMPONENT_LIMIT)
    found = list(each_component(components))
    if len(found) > COMPONENT_LIMIT:
        raise bad_length(("components",), 1, COMPONENT_LIMIT)
    if sum(len(component["content"]) for component in found if component["type"] == Kind.TEXT) > TEXT_LIMIT:
        raise bad_length(("components",), 0, TEXT_LIMIT)
    _check_unique(components)


def check_modal(modal: Json) -> None:
    check_text(modal, "title", ("data",), least=1, most=45)
    check_text(modal, "custom_id", ("data",), least=1, most=100)
    place = ("data", "components")
    components = modal.get("components") or []
    check_count(components, place, least=1, most=5)
    for index, component in enumerate(components):
        here = (*place, index)
        _check_kind(component, here, {Kind.ROW, Kind.TEXT, Kind.LABEL})
        if component["type"] == Kind.ROW:
            check_each(component.get("components"), (*here, "components"), allowed={Kind.TEXT_INPUT}, most=1)
            check_text(component["components"][0], "label", (*here, "components", 0), least=1, most=45)
        else:
            CHECKS[component["type"]](component, here)
    _check_unique(components)


def check_each(given: object, place: Place, *, allowed: Collection[int], most: int) -> None:
    components = check_count(given, place, least=1, most=most)
    for index, component in enumerate(components):
        _check_kind(component, (*place, index), allowed)
        CHECKS.get(component["type"], _nothing)(component, (*place, index))


def check_text(given: Json, key: str, place: Place, *, least: int = 0, most: int) -> None:
    """An optional text may be missing or null."""
    value = given.get(key)
    if value is None and not least:
        return
    if not isinstance(value, str):
        raise invalid_form(*place, key, code="BASE_TYPE_REQUIRED", message="This field is required")
    if not least <= len(value) <= most:
        raise bad_length((*place, key), least, most)


def check_number(given: Json, key: str, place: Place, *, least: int, most: int) -> None:
    value = given.get(key)
    if value is not None and not (isinstance(value, int) and least <= value <= most):
        words = f"int value should be between {least} and {most}."
        raise invalid_form(*place, key, code="NUMBER_TYPE_RANGE", message=words)


def check_count(given: object, place: Place, *, least: int, most: int) -> list[Json]:
    if not isinstance(given, list) or not least <= len(given) <= most:
        raise bad_length(place, least, most)
    return given


def bad_length(place: Place, least: int, most: int) -> Refusal:
    words = f"Must be between {least} and {most} in length."
    return invalid_form(*place, code="BASE_TYPE_BAD_LENGTH", message=words)


def _check_kind(component: Json, place: Place, allowed: Collection[int]) -> None:
    if component.get("type") not in allowed:
        kinds = ", ".join(str(int(kind)) for kind in sorted(allowed))
        words = f'Value of field "type" must be one of ({kinds}).'
        raise invalid_form(*place, "type", code="UNION_TYPE_CHOICES", message=words)


def _check_unique(components: Iterable[Json]) -> None:
    seen = set()
    for component in each_component(components):
        custom_id = component.get("custom_id")
        if custom_id in seen:
            words = "Component custom id cannot be duplicated"
            raise invalid_form("components", code="COMPONENT_CUSTOM_ID_DUPLICATED", message=words)
        if custom_id is not None:
            seen.add(custom_id)


def _row(row: Json, place: Place) -> None:
    """Up to five buttons, or one select that takes the whole width."""
    inner = (*place, "components")
    children = check_count(row.get("components"), inner, least=1, most=ROW_WIDTH)
    select = children[0].get("type") in SELECTS
    check_each(children, inner, allowed=SELECTS if select else {Kind.BUTTON}, most=1 if select else ROW_WIDTH)


def _button(button: Json, place: Place) -> None:
    check_number(button, "style", place, least=1, most=PREMIUM)
    check_text(button, "label", place, most=80)
    style = button.get("style")
    needed = {LINK: "url", PREMIUM: "sku_id"}.get(style or 0, "custom_id")
    check_text(button, needed, place, least=1, most=512 if style == LINK else 100)
    if style is None or not (button.get("label") or button.get("emoji") or style == PREMIUM):
        raise invalid_form(*place, code="BUTTON_COMPONENT_INVALID", message="A button needs a style, a label or emoji")


def _select(select: Json, place: Place) -> None:
    check_text(select, "custom_id", place, least=1, most=100)
    check_text(select, "placeholder", place, most=150)
    check_number(select, "min_values", place, least=0, most=OPTION_LIMIT)
    check_number(select, "max_values", place, least=1, most=OPTION_LIMIT)


def _string_select(select: Json, place: Place) -> None:
    _select(select, place)
    inner = (*place, "options")
    options = check_count(select.get("options"), inner, least=1, most=OPTION_LIMIT)
    for index, option in enumerate(options):
        check_text(option, "label", (*inner, index), least=1, most=100)
        check_text(option, "value", (*inner, index), least=1, most=100)
        check_text(option, "description", (*inner, index), most=100)
    if len({option["value"] for option in options}) < len(options):
        words = "The specified option value is already used"
        raise invalid_form(*inner, code="SELECT_COMPONENT_OPTION_VALUE_DUPLICATED", message=words)
    if sum(bool(option.get("default")) for option in options) > (select.get("max_values") or 1):
        words = "The number of default options is above max_values"
        raise invalid_form(*inner, code="SELECT_COMPONENT_TOO_MANY_DEFAULT_VALUES", message=words)


def _text_input(field: Json, place: Place) -> None:
    check_text(field, "custom_id", place, least=1, most=100)
    if field.get("style") not in (1, 2):
        raise invalid_form(*place, "style", code="BASE_TYPE_CHOICES", message="Value must be one of {1, 2}.")
    check_number(field, "min_length", place, least=0, most=TEXT_LIMIT)
    check_number(field, "max_length", place, least=1, most=TEXT_LIMIT)
    check_text(field, "value", place, most=field.get("max_length") or TEXT_LIMIT)
    check_text(field, "placeholder", place, most=100)


def _file_upload(field: Json, place: Place) -> None:
    check_text(field, "custom_id", place, least=1, most=100)
    check_number(field, "min_values", place, least=0, most=10)
    check_number(field, "max_values", place, least=1, most=10)


def _label(label: Json, place: Place) -> None:
    check_text(label, "label", place, least=1, most=45)
    check_text(label, "description", place, most=100)
    inner = label.get("component") or {}
    here = (*place, "component")
    _check_kind(inner, here, IN_LABELS)
    if inner.get("label") or inner.get("disabled"):
        raise invalid_form(*here, code="LABEL_COMPONENT_INVALID", message="Neither label nor disabled inside a Label")
    CHECKS.get(inner["type"], _custom)(inner, here)


def _text(component: Json, place: Place) -> None:
    check_text(component, "content", place, least=1, most=TEXT_LIMIT)


def _gallery(component: Json, place: Place) -> None:
    for index, item in enumerate(check_count(component.get("items"), (*place, "items"), least=1, most=10)):
        check_text(item, "description", (*place, "items", index), most=1024)


def _section(section: Json, place: Place) -> None:
    check_each(section.get("components"), (*place, "components"), allowed={Kind.TEXT}, most=3)
    check_each([section.get("accessory") or {}], (*place, "accessory"), allowed={Kind.BUTTON, Kind.THUMBNAIL}, most=1)


def _container(container: Json, place: Place) -> None:
    inner = (*place, "components")
    check_each(container.get("components"), inner, allowed=IN_CONTAINERS, most=COMPONENT_LIMIT)


def _custom(component: Json, place: Place) -> None:
    check_text(component, "custom_id", place, least=1, most=100)


def _nothing(_: Json, __: Place) -> None:
    """Of thumbnails, files and separators nothing is asked."""


CHECKS: Mapping[int, Check] = MappingProxyType(
    {
        Kind.ROW: _row,
        Kind.BUTTON: _button,
        Kind.STRING_SELECT: _string_select,
        **dict.fromkeys(SELECTS - {Kind.STRING_SELECT}, _select),
        Kind.TEXT_INPUT: _text_input,
        Kind.FILE_UPLOAD: _file_upload,
        Kind.LABEL: _label,
        Kind.TEXT: _text,
        Kind.GALLERY: _gallery,
        Kind.SECTION: _section,
        Kind.CONTAINER: _container,
    }
)


def numbered(components: list[Json]) -> list[Json]:
    """Discord gives every component an id, in the order they are read."""
    numbers = count(1)

    def number(component: Json) -> Json:
        shown: Json = {"id": next(numbers)} | component
        if "components" in component:
            shown["components"] = [number(inner) for inner in component["components"]]
        for key in ("accessory", "component"):
            if key in component:
                shown[key] = number(component[key])
        return shown

    return [number(component) for component in components]


def each_component(components: Iterable[Json]) -> Iterator[Json]:
    for component in components:
        yield component
        yield from each_component(component.get("components", ()))
        yield from (component[key] for key in ("accessory", "component") if key in component)


def component_with(custom_id: str, components: Iterable[Json]) -> Json:
    """Raises LookupError if there is none, or if it is disabled."""
    for component in each_component(components):
        if component.get("custom_id") == custom_id:
            if component.get("disabled"):
                raise LookupError(f"the component {custom_id!r} is disabled")
            return component
    raise LookupError(f"no component {custom_id!r}")
