"""Who may use the bot, and where."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.domain.access import AccessRules, account_created
from bot.domain.errors import Blocked, ChannelNotAllowed, RequestRejected, ServerNotAllowed, TooNew
from bot.domain.server_rules import Block, ServerRules
from tests.support.factories import NOON, requester

if TYPE_CHECKING:
    from bot.domain.models import Requester

DAY = timedelta(days=1)
ANYBODY = AccessRules()


def account(created: datetime, worker: int = 0) -> int:
    """A snowflake as Discord would have made it at that moment."""
    return ((created - datetime(2015, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1) << 22) | worker


def block(until: datetime | None = None) -> Block:
    return Block(7, is_server=False, subject=1, reason="spam", until=until, actor=2, at=NOON - DAY)


def is_accepted(rules: AccessRules, by: Requester, here: ServerRules | None = None) -> bool:
    try:
        rules.check(by, here or ServerRules(), ())
    except RequestRejected:
        return False
    return True


def test_without_any_rule_everybody_may_use_the_bot_everywhere() -> None:
    assert is_accepted(ANYBODY, requester(account(NOON)))
    assert is_accepted(ANYBODY, replace(requester(), guild_id=None))


@pytest.mark.parametrize(("guild_id", "accepted"), [(7, True), (8, True), (9, False), (None, False)])
def test_with_a_list_of_servers_only_those_are_served(guild_id: int | None, *, accepted: bool) -> None:
    rules = AccessRules(servers=frozenset({7, 8}))
    assert is_accepted(rules, replace(requester(), guild_id=guild_id)) == accepted
    if not accepted:
        with pytest.raises(ServerNotAllowed):
            rules.check_server(guild_id)


def test_another_server_is_told_nothing_else() -> None:
    strict = AccessRules(servers=frozenset({8}), account_age=DAY)
    with pytest.raises(ServerNotAllowed):
        strict.check(requester(account(NOON)), ServerRules(channels=frozenset({1})), [block()])


@pytest.mark.parametrize(
    ("until", "accepted"),
    [(None, False), (NOON + timedelta(milliseconds=1), False), (NOON, True), (NOON - DAY, True)],
)
def test_a_block_ends_at_its_expiry_by_the_time_of_the_request(until: datetime | None, *, accepted: bool) -> None:
    if accepted:
        ANYBODY.check(requester(at=NOON), ServerRules(), [block(until)])
        return
    with pytest.raises(Blocked) as refused:
        ANYBODY.check(requester(at=NOON), ServerRules(), [block(NOON - DAY), block(until)])
    assert refused.value.block == block(until)


@given(st.datetimes(datetime(2015, 1, 2), datetime(2080, 1, 1), timezones=st.just(UTC)), st.integers(0, 2**22 - 1))  # noqa: DTZ001
def test_the_age_of_an_account_is_in_its_id(created: datetime, worker: int) -> None:
    found = account_created(account(created, worker))
    assert timedelta(0) <= created - found < timedelta(milliseconds=1)


@pytest.mark.parametrize(("age", "accepted"), [(7 * DAY, True), (7 * DAY - timedelta(milliseconds=1), False)])
def test_an_account_has_to_be_old_enough_when_it_asks(age: timedelta, *, accepted: bool) -> None:
    rules, by = AccessRules(account_age=7 * DAY), requester(account(NOON - age, worker=77))
    assert is_accepted(rules, by) == accepted
    if not accepted:
        with pytest.raises(TooNew) as refused:
            rules.check(by, ServerRules(), ())
        assert (refused.value.what, refused.value.until) == ("account", NOON - age + 7 * DAY)


@pytest.mark.parametrize(
    ("joined", "accepted"), [(NOON - DAY, True), (NOON - DAY + timedelta(seconds=1), False), (None, True)]
)
def test_a_member_has_to_be_there_long_enough(joined: datetime | None, *, accepted: bool) -> None:
    rules, by = AccessRules(time_in_server=DAY), replace(requester(), joined_at=joined)
    assert is_accepted(rules, by) == accepted
    if not accepted and joined is not None:
        with pytest.raises(TooNew) as refused:
            rules.check(by, ServerRules(), ())
        assert (refused.value.what, refused.value.until) == ("member", joined + DAY)


@pytest.mark.parametrize(
    ("channel", "parent", "private", "accepted"),
    [
        (20, None, False, True),
        (21, None, False, False),
        (21, 20, False, True),  # a thread of an allowed channel
        (21, 22, False, False),
        (20, 22, False, True),  # a thread that is allowed itself
        (21, None, True, True),  # nobody else sees a private result
        (21, 22, True, True),
    ],
)
def test_public_results_go_to_the_channels_that_the_admins_chose(
    channel: int, parent: int | None, *, private: bool, accepted: bool
) -> None:
    here = ServerRules(channels=frozenset({30, 20}))
    by = replace(requester(), channel_id=channel, parent_channel_id=parent, private=private)
    assert is_accepted(ANYBODY, by, here) == accepted
    assert is_accepted(ANYBODY, by), "without a choice every channel will do"
    if not accepted:
        with pytest.raises(ChannelNotAllowed) as refused:
            ANYBODY.check(by, here, ())
        assert refused.value.channels == (20, 30)
