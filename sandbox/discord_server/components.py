"""Message and modal components: Discord's rules, their ids, and how to find one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import IntEnum
from itertools import count
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

from sandbox.discord_server.api_errors import ApiError, invalid_form
from sandbox.discord_server.payloads import Json

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

COMPONENT_LIMIT = 40
TEXT_LIMIT = 4000
ROW_WIDTH = 5
OPTION_LIMIT = 25
LINK, PREMIUM = 5, 6

FieldPath: TypeAlias = tuple[str | int, ...]
Check: TypeAlias = Callable[[Json, FieldPath], None]


class ComponentType(IntEnum):
    """Discord's component types."""

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
    {
        ComponentType.STRING_SELECT,
        ComponentType.USER_SELECT,
        ComponentType.ROLE_SELECT,
        ComponentType.MENTIONABLE_SELECT,
        ComponentType.CHANNEL_SELECT,
    }
)
IN_CONTAINERS = frozenset(
    {
        ComponentType.ROW,
        ComponentType.SECTION,
        ComponentType.TEXT,
        ComponentType.GALLERY,
        ComponentType.FILE,
        ComponentType.SEPARATOR,
    }
)
IN_LAYOUTS = IN_CONTAINERS | {ComponentType.CONTAINER}
IN_LABELS = SELECTS | {
    ComponentType.TEXT_INPUT,
    ComponentType.FILE_UPLOAD,
    ComponentType.RADIO_GROUP,
    ComponentType.CHECKBOX_GROUP,
    ComponentType.CHECKBOX,
}


def check_message(components: list[Json], *, layout: bool) -> None:
    """With `layout` (the IS_COMPONENTS_V2 flag) every kind of component is allowed; without it, only action rows."""
    if not layout:
        check_each(components, ("components",), allowed={ComponentType.ROW}, maximum=5)
        _check_unique(components)
        return
    check_each(components, ("components",), allowed=IN_LAYOUTS, maximum=COMPONENT_LIMIT)
    found = list(walk_components(components))
    if len(found) > COMPONENT_LIMIT:
        raise bad_length(("components",), 1, COMPONENT_LIMIT)
    if sum(len(component["content"]) for component in found if component["type"] == ComponentType.TEXT) > TEXT_LIMIT:
        raise bad_length(("components",), 0, TEXT_LIMIT)
    _check_unique(components)


def check_modal(modal: Json) -> None:
    check_text(modal, "title", ("data",), minimum=1, maximum=45)
    check_text(modal, "custom_id", ("data",), minimum=1, maximum=100)
    path = ("data", "components")
    components = modal.get("components") or []
    check_count(components, path, minimum=1, maximum=5)
    for index, component in enumerate(components):
        here = (*path, index)
        _check_type(component, here, {ComponentType.ROW, ComponentType.TEXT, ComponentType.LABEL})
        if component["type"] == ComponentType.ROW:
            check_each(
                component.get("components"), (*here, "components"), allowed={ComponentType.TEXT_INPUT}, maximum=1
            )
            check_text(component["components"][0], "label", (*here, "components", 0), minimum=1, maximum=45)
        else:
            CHECKS[component["type"]](component, here)
    _check_unique(components)


def check_each(given: object, path: FieldPath, *, allowed: Collection[int], maximum: int) -> None:
    components = check_count(given, path, minimum=1, maximum=maximum)
    for index, component in enumerate(components):
        _check_type(component, (*path, index), allowed)
        CHECKS.get(component["type"], _accept)(component, (*path, index))


def check_text(given: Json, key: str, path: FieldPath, *, minimum: int = 0, maximum: int) -> None:
    """Without a minimum the text is optional: it can be missing or null."""
    value = given.get(key)
    if value is None and not minimum:
        return
    if not isinstance(value, str):
        raise invalid_form(*path, key, code="BASE_TYPE_REQUIRED", message="This field is required")
    if not minimum <= len(value) <= maximum:
        raise bad_length((*path, key), minimum, maximum)


def check_number(given: Json, key: str, path: FieldPath, *, minimum: int, maximum: int) -> None:
    value = given.get(key)
    if value is not None and not (isinstance(value, int) and minimum <= value <= maximum):
        message = f"int value should be between {minimum} and {maximum}."
        raise invalid_form(*path, key, code="NUMBER_TYPE_RANGE", message=message)


def check_count(given: object, path: FieldPath, *, minimum: int, maximum: int) -> list[Json]:
    if not isinstance(given, list) or not minimum <= len(given) <= maximum:
        raise bad_length(path, minimum, maximum)
    return given


def bad_length(path: FieldPath, minimum: int, maximum: int) -> ApiError:
    message = f"Must be between {minimum} and {maximum} in length."
    return invalid_form(*path, code="BASE_TYPE_BAD_LENGTH", message=message)


def _check_type(component: Json, path: FieldPath, allowed: Collection[int]) -> None:
    if component.get("type") not in allowed:
        kinds = ", ".join(str(int(kind)) for kind in sorted(allowed))
        message = f'Value of field "type" must be one of ({kinds}).'
        raise invalid_form(*path, "type", code="UNION_TYPE_CHOICES", message=message)


def _check_unique(components: Iterable[Json]) -> None:
    seen = set()
    for component in walk_components(components):
        custom_id = component.get("custom_id")
        if custom_id in seen:
            message = "Component custom id cannot be duplicated"
            raise invalid_form("components", code="COMPONENT_CUSTOM_ID_DUPLICATED", message=message)
        if custom_id is not None:
            seen.add(custom_id)


def _check_row(row: Json, path: FieldPath) -> None:
    """An action row holds up to five buttons, or a single select."""
    inner = (*path, "components")
    children = check_count(row.get("components"), inner, minimum=1, maximum=ROW_WIDTH)
    select = children[0].get("type") in SELECTS
    check_each(
        children, inner, allowed=SELECTS if select else {ComponentType.BUTTON}, maximum=1 if select else ROW_WIDTH
    )


def _check_button(button: Json, path: FieldPath) -> None:
    check_number(button, "style", path, minimum=1, maximum=PREMIUM)
    check_text(button, "label", path, maximum=80)
    style = button.get("style")
    needed = {LINK: "url", PREMIUM: "sku_id"}.get(style or 0, "custom_id")
    check_text(button, needed, path, minimum=1, maximum=512 if style == LINK else 100)
    if style is None or not (button.get("label") or button.get("emoji") or style == PREMIUM):
        raise invalid_form(*path, code="BUTTON_COMPONENT_INVALID", message="A button needs a style, a label or emoji")


def _check_select(select: Json, path: FieldPath) -> None:
    check_text(select, "custom_id", path, minimum=1, maximum=100)
    check_text(select, "placeholder", path, maximum=150)
    check_number(select, "min_values", path, minimum=0, maximum=OPTION_LIMIT)
    check_number(select, "max_values", path, minimum=1, maximum=OPTION_LIMIT)


def _check_string_select(select: Json, path: FieldPath) -> None:
    _check_select(select, path)
    inner = (*path, "options")
    options = check_count(select.get("options"), inner, minimum=1, maximum=OPTION_LIMIT)
    for index, option in enumerate(options):
        check_text(option, "label", (*inner, index), minimum=1, maximum=100)
        check_text(option, "value", (*inner, index), minimum=1, maximum=100)
        check_text(option, "description", (*inner, index), maximum=100)
    if len({option["value"] for option in options}) < len(options):
        message = "The specified option value is already used"
        raise invalid_form(*inner, code="SELECT_COMPONENT_OPTION_VALUE_DUPLICATED", message=message)
    if sum(bool(option.get("default")) for option in options) > (select.get("max_values") or 1):
        message = "The number of default options is above max_values"
        raise invalid_form(*inner, code="SELECT_COMPONENT_TOO_MANY_DEFAULT_VALUES", message=message)


def _check_text_input(field: Json, path: FieldPath) -> None:
    check_text(field, "custom_id", path, minimum=1, maximum=100)
    if field.get("style") not in (1, 2):
        raise invalid_form(*path, "style", code="BASE_TYPE_CHOICES", message="Value must be one of {1, 2}.")
    check_number(field, "min_length", path, minimum=0, maximum=TEXT_LIMIT)
    check_number(field, "max_length", path, minimum=1, maximum=TEXT_LIMIT)
    check_text(field, "value", path, maximum=field.get("max_length") or TEXT_LIMIT)
    check_text(field, "placeholder", path, maximum=100)


def _check_file_upload(field: Json, path: FieldPath) -> None:
    check_text(field, "custom_id", path, minimum=1, maximum=100)
    check_number(field, "min_values", path, minimum=0, maximum=10)
    check_number(field, "max_values", path, minimum=1, maximum=10)


def _check_label(label: Json, path: FieldPath) -> None:
    check_text(label, "label", path, minimum=1, maximum=45)
    check_text(label, "description", path, maximum=100)
    inner = label.get("component") or {}
    here = (*path, "component")
    _check_type(inner, here, IN_LABELS)
    if inner.get("label") or inner.get("disabled"):
        message = "A component in a Label has neither label nor disabled"
        raise invalid_form(*here, code="LABEL_COMPONENT_INVALID", message=message)
    CHECKS.get(inner["type"], _check_custom_id)(inner, here)


def _check_text_display(component: Json, path: FieldPath) -> None:
    check_text(component, "content", path, minimum=1, maximum=TEXT_LIMIT)


def _check_gallery(component: Json, path: FieldPath) -> None:
    for index, item in enumerate(check_count(component.get("items"), (*path, "items"), minimum=1, maximum=10)):
        check_text(item, "description", (*path, "items", index), maximum=1024)


def _check_section(section: Json, path: FieldPath) -> None:
    check_each(section.get("components"), (*path, "components"), allowed={ComponentType.TEXT}, maximum=3)
    check_each(
        [section.get("accessory") or {}],
        (*path, "accessory"),
        allowed={ComponentType.BUTTON, ComponentType.THUMBNAIL},
        maximum=1,
    )


def _check_container(container: Json, path: FieldPath) -> None:
    inner = (*path, "components")
    check_each(container.get("components"), inner, allowed=IN_CONTAINERS, maximum=COMPONENT_LIMIT)


def _check_custom_id(component: Json, path: FieldPath) -> None:
    check_text(component, "custom_id", path, minimum=1, maximum=100)


def _accept(_: Json, __: FieldPath) -> None:
    """Accepts thumbnails, files and separators without a check."""


CHECKS: Mapping[int, Check] = MappingProxyType(
    {
        ComponentType.ROW: _check_row,
        ComponentType.BUTTON: _check_button,
        ComponentType.STRING_SELECT: _check_string_select,
        **dict.fromkeys(SELECTS - {ComponentType.STRING_SELECT}, _check_select),
        ComponentType.TEXT_INPUT: _check_text_input,
        ComponentType.FILE_UPLOAD: _check_file_upload,
        ComponentType.LABEL: _check_label,
        ComponentType.TEXT: _check_text_display,
        ComponentType.GALLERY: _check_gallery,
        ComponentType.SECTION: _check_section,
        ComponentType.CONTAINER: _check_container,
    }
)


def assign_ids(components: list[Json]) -> list[Json]:
    """Discord assigns every component an id, in document order."""
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


def walk_components(components: Iterable[Json]) -> Iterator[Json]:
    for component in components:
        yield component
        yield from walk_components(component.get("components", ()))
        yield from (component[key] for key in ("accessory", "component") if key in component)


def find_component(custom_id: str, components: Iterable[Json]) -> Json:
    """Raises LookupError if the component is missing or disabled."""
    for component in walk_components(components):
        if component.get("custom_id") == custom_id:
            if component.get("disabled"):
                raise LookupError(f"the component {custom_id!r} is disabled")
            return component
    raise LookupError(f"no component {custom_id!r}")
