"""Channel permissions, checked against the algorithm that Discord documents."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cogs.permissions import permissions
from sandbox.discord_server import MANAGE_MESSAGES

GUILD, RED, BLUE, ANN = 1, 10, 11, 99
SEND, ADMINISTRATOR = 1 << 11, 1 << 3
NOTHING = 0


def overwrite(subject: int, *, allow: int = NOTHING, deny: int = NOTHING) -> dict[str, Any]:
    return {"id": str(subject), "type": int(subject == ANN), "allow": str(allow), "deny": str(deny)}


def may_manage(granted: list[int], *overwrites: dict[str, Any], roles: tuple[int, ...] = (RED, BLUE)) -> bool:
    return permissions(granted, overwrites, GUILD, ANN, {GUILD, *roles}).manage_messages


def test_one_role_with_the_permission_is_enough() -> None:
    assert not may_manage([SEND, SEND])
    assert may_manage([SEND, MANAGE_MESSAGES, NOTHING])
    assert permissions([SEND, MANAGE_MESSAGES], (), GUILD, ANN, {GUILD}).value == SEND | MANAGE_MESSAGES


def test_a_channel_can_deny_everyone_what_roles_grant() -> None:
    denied = overwrite(GUILD, deny=MANAGE_MESSAGES)
    assert not may_manage([MANAGE_MESSAGES], denied)
    assert may_manage([MANAGE_MESSAGES], denied, overwrite(RED, allow=MANAGE_MESSAGES))
    assert may_manage([NOTHING], overwrite(GUILD, allow=MANAGE_MESSAGES))


def test_among_role_overwrites_allow_wins_in_any_order() -> None:
    of_roles = [overwrite(RED, deny=MANAGE_MESSAGES), overwrite(BLUE, allow=MANAGE_MESSAGES)]
    assert may_manage([NOTHING], *of_roles)
    assert may_manage([NOTHING], *reversed(of_roles))
    assert not may_manage([MANAGE_MESSAGES], of_roles[0])


def test_the_overwrite_for_the_member_wins() -> None:
    for_ann = overwrite(ANN, deny=MANAGE_MESSAGES)
    assert not may_manage([MANAGE_MESSAGES], overwrite(RED, allow=MANAGE_MESSAGES), for_ann)
    assert may_manage([NOTHING], overwrite(RED, deny=MANAGE_MESSAGES), overwrite(ANN, allow=MANAGE_MESSAGES))


def test_overwrites_for_other_roles_and_members_are_ignored() -> None:
    assert not may_manage([NOTHING], overwrite(BLUE, allow=MANAGE_MESSAGES), roles=(RED,))
    assert may_manage([MANAGE_MESSAGES], overwrite(98, deny=MANAGE_MESSAGES))


def test_an_administrator_bypasses_overwrites_and_no_overwrite_grants_administrator() -> None:
    everything = (1 << 53) - 1
    denied = [overwrite(subject, deny=everything) for subject in (GUILD, RED, ANN)]
    assert may_manage([NOTHING, ADMINISTRATOR], *denied)
    assert not may_manage([SEND], overwrite(RED, allow=ADMINISTRATOR))


@given(st.lists(st.integers(0, 63), min_size=5, max_size=5), st.lists(st.integers(0, 63), min_size=6, max_size=6))
def test_permissions_follow_the_documented_steps(granted: list[int], bits: list[int]) -> None:
    """Follows https://discord.com/developers/docs/topics/permissions#permission-overwrites bit by bit."""
    subjects = (GUILD, RED, BLUE)
    found = [overwrite(one, allow=a, deny=d) for one, a, d in zip(subjects, bits[::2], bits[1::2], strict=True)]
    result = permissions(granted, found, GUILD, ANN, {GUILD, RED, BLUE}).value
    for bit in (1 << n for n in range(6)):
        if any(value & ADMINISTRATOR for value in granted) or (bits[2] | bits[4]) & bit:
            expected = True
        elif (bits[3] | bits[5]) & bit:
            expected = False
        elif bits[0] & bit:
            expected = True
        else:
            expected = any(value & bit for value in granted) and not bits[1] & bit
        assert bool(result & bit) is expected


@pytest.mark.parametrize("roles", [(), (RED,), (RED, BLUE)])
def test_without_overwrites_the_channel_changes_nothing(roles: tuple[int, ...]) -> None:
    assert permissions([SEND], (), GUILD, ANN, {GUILD, *roles}).value == SEND
