"""Discord's limits for message and modal components."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sandbox.discord_server.api_errors import ApiError
from sandbox.discord_server.components import assign_ids, check_message, check_modal, find_component, walk_components

LONG = "x" * 4001


def modal(*components: Any, **fields: Any) -> dict[str, Any]:
    return {"custom_id": "m", "title": "Edit", "components": list(components)} | fields


def label(component: dict[str, Any], text: str = "Prompt") -> dict[str, Any]:
    return {"type": 18, "label": text, "component": component}


FIELD: dict[str, Any] = {"type": 4, "custom_id": "prompt", "style": 2}
OPTIONS = [{"label": str(number), "value": str(number)} for number in range(26)]


@pytest.mark.parametrize(
    ("invalid", "path"),
    [
        (modal(label(FIELD), title="x" * 46), "title"),
        (modal(label(FIELD), custom_id="x" * 101), "custom_id"),
        (modal(), "components"),
        (modal(*(label(FIELD | {"custom_id": str(number)}) for number in range(6))), "components"),
        (modal(label(FIELD), label(FIELD)), "duplicated"),
        (modal(label(FIELD, "x" * 46)), "label"),
        (modal(label(FIELD | {"value": LONG})), "value"),
        (modal(label(FIELD | {"value": "long", "max_length": 3})), "value"),
        (modal(label(FIELD | {"label": "Twice"})), "Label"),
        (modal(label({"type": 2, "custom_id": "b", "style": 1, "label": "b"})), "type"),
        (modal(label({"type": 3, "custom_id": "s", "options": OPTIONS})), "options"),
        (modal(label({"type": 19, "custom_id": "f", "max_values": 11})), "max_values"),
        (modal(FIELD), "type"),
    ],
)
def test_a_modal_beyond_the_limits_is_refused(invalid: dict[str, Any], path: str) -> None:
    with pytest.raises(ApiError) as refused:
        check_modal(invalid)
    assert refused.value.body["code"] == 50035
    assert path in json.dumps(refused.value.body["errors"])


def test_a_modal_at_the_limits_is_accepted() -> None:
    text = label({"type": 4, "custom_id": "x" * 100, "style": 1, "value": LONG[1:], "max_length": 4000}, "x" * 45)
    choice = label({"type": 3, "custom_id": "s", "options": OPTIONS[:25], "required": False})
    upload = label({"type": 19, "custom_id": "f", "min_values": 0, "max_values": 10})
    action_row = {"type": 1, "components": [FIELD | {"label": "Old"}]}
    check_modal(
        modal(text, choice, upload, action_row, {"type": 10, "content": "words"}, title="x" * 45, custom_id="x" * 100)
    )


@pytest.mark.parametrize(
    ("components", "path"),
    [
        ([{"type": 2, "custom_id": "a", "style": 1, "label": "a"}], "type"),
        ([{"type": 1, "components": []}], "components"),
        ([{"type": 1, "components": [{"type": 2, "custom_id": "x" * 101, "style": 1, "label": "a"}]}], "custom_id"),
        ([{"type": 1, "components": [{"type": 2, "custom_id": "a", "style": 1, "label": "x" * 81}]}], "label"),
        ([{"type": 1, "components": [{"type": 2, "custom_id": "a", "style": 1}]}], "BUTTON"),
        ([{"type": 1, "components": [{"type": 2, "style": 1, "label": "a"}]}], "custom_id"),
        ([{"type": 1, "components": [{"type": 2, "style": 5, "label": "a"}]}], "url"),
        (
            [
                {
                    "type": 1,
                    "components": [
                        {"type": 2, "custom_id": str(number), "style": 1, "label": "a"} for number in range(6)
                    ],
                }
            ],
            "components",
        ),
        ([{"type": 1, "components": [{"type": 3, "custom_id": "s", "options": OPTIONS}]}], "options"),
        ([{"type": 1, "components": [{"type": 3, "custom_id": "s", "options": OPTIONS[:1] * 2}]}], "DUPLICATED"),
        ([{"type": 1, "components": [{"type": 2, "custom_id": "a", "style": 1, "label": "a"}]}] * 2, "DUPLICATED"),
        ([{"type": 10, "content": "layout"}], "type"),
    ],
)
def test_components_beyond_the_limits_are_refused(components: list[dict[str, Any]], path: str) -> None:
    with pytest.raises(ApiError) as refused:
        check_message(components, layout=False)
    assert refused.value.body["code"] == 50035
    assert path in json.dumps(refused.value.body["errors"])


def button(custom_id: str, **more: Any) -> dict[str, Any]:
    return {"type": 2, "custom_id": custom_id, "style": 1, "label": "x" * 80} | more


def test_components_at_the_limits_are_accepted() -> None:
    rows = [{"type": 1, "components": [button(f"{row}{column}") for column in range(5)]} for row in range(4)]
    chosen = {"type": 3, "custom_id": "s", "options": OPTIONS[:25]}
    check_message([*rows, {"type": 1, "components": [chosen]}], layout=False)
    link = {"type": 2, "style": 5, "url": "https://example.org", "emoji": {"name": "🔗"}}
    check_message([{"type": 1, "components": [link]}], layout=False)


SECTION: dict[str, Any] = {"type": 9, "components": [{"type": 10, "content": "words"}], "accessory": button("a")}


def test_layout_components_have_their_own_limits() -> None:
    check_message([{"type": 17, "components": [SECTION, {"type": 12, "items": [{"media": {}}]}]}], layout=True)
    invalid_layouts: list[list[dict[str, Any]]] = [
        [{"type": 10, "content": "x" * 2001}] * 2,
        [{"type": 14}] * 41,
        [SECTION, SECTION],
        [{"type": 12, "items": []}],
        [{"type": 17, "components": [{"type": 17}]}],
        [SECTION | {"accessory": None}],
    ]
    for invalid in invalid_layouts:
        with pytest.raises(ApiError):
            check_message(invalid, layout=True)


def test_components_get_ids_in_document_order() -> None:
    parts = assign_ids([{"type": 17, "components": [SECTION]}, label(FIELD)])
    assert [part["id"] for part in walk_components(parts)] == [1, 2, 3, 4, 5, 6]
    assert find_component("a", parts)["id"] == 4
    assert find_component("prompt", parts)["type"] == 4
    with pytest.raises(LookupError):
        find_component("b", parts)
