"""Who may do what in a channel, against the algorithm Discord documents."""

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


def exception(subject: int, *, allow: int = NOTHING, deny: int = NOTHING) -> dict[str, Any]:
    return {"id": str(subject), "type": int(subject == ANN), "allow": str(allow), "deny": str(deny)}


def may_manage(granted: list[int], *exceptions: dict[str, Any], roles: tuple[int, ...] = (RED, BLUE)) -> bool:
    return permissions(granted, exceptions, GUILD, ANN, {GUILD, *roles}).manage_messages


def test_one_role_that_may_is_enough() -> None:
    assert not may_manage([SEND, SEND])
    assert may_manage([SEND, MANAGE_MESSAGES, NOTHING])
    assert permissions([SEND, MANAGE_MESSAGES], (), GUILD, ANN, {GUILD}).value == SEND | MANAGE_MESSAGES


def test_a_channel_may_take_from_everyone_what_roles_give() -> None:
    denied = exception(GUILD, deny=MANAGE_MESSAGES)
    assert not may_manage([MANAGE_MESSAGES], denied)
    assert may_manage([MANAGE_MESSAGES], denied, exception(RED, allow=MANAGE_MESSAGES))
    assert may_manage([NOTHING], exception(GUILD, allow=MANAGE_MESSAGES))


def test_among_roles_allowing_goes_before_denying_in_whatever_order() -> None:
    of_roles = [exception(RED, deny=MANAGE_MESSAGES), exception(BLUE, allow=MANAGE_MESSAGES)]
    assert may_manage([NOTHING], *of_roles)
    assert may_manage([NOTHING], *reversed(of_roles))
    assert not may_manage([MANAGE_MESSAGES], of_roles[0])


def test_the_exception_for_the_member_has_the_last_word() -> None:
    for_ann = exception(ANN, deny=MANAGE_MESSAGES)
    assert not may_manage([MANAGE_MESSAGES], exception(RED, allow=MANAGE_MESSAGES), for_ann)
    assert may_manage([NOTHING], exception(RED, deny=MANAGE_MESSAGES), exception(ANN, allow=MANAGE_MESSAGES))


def test_exceptions_for_other_roles_and_members_do_not_matter() -> None:
    assert not may_manage([NOTHING], exception(BLUE, allow=MANAGE_MESSAGES), roles=(RED,))
    assert may_manage([MANAGE_MESSAGES], exception(98, deny=MANAGE_MESSAGES))


def test_an_administrator_is_above_every_exception_and_no_exception_makes_one() -> None:
    everything = (1 << 53) - 1
    denied = [exception(subject, deny=everything) for subject in (GUILD, RED, ANN)]
    assert may_manage([NOTHING, ADMINISTRATOR], *denied)
    assert not may_manage([SEND], exception(RED, allow=ADMINISTRATOR))


@given(st.lists(st.integers(0, 63), min_size=5, max_size=5), st.lists(st.integers(0, 63), min_size=6, max_size=6))
def test_it_agrees_with_the_documented_steps(granted: list[int], bits: list[int]) -> None:
    """As on https://discord.com/developers/docs/topics/permissions#permission-overwrites, bit by bit."""
    subjects = (GUILD, RED, BLUE)
    found = [exception(one, allow=a, deny=d) for one, a, d in zip(subjects, bits[::2], bits[1::2], strict=True)]
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
def test_without_exceptions_the_channel_changes_nothing(roles: tuple[int, ...]) -> None:
    assert permissions([SEND], (), GUILD, ANN, {GUILD, *roles}).value == SEND
