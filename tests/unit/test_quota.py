"""Quota days, costs, and which limit applies."""

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.domain.models import Allowance, Limit, Model, Period, Scope, Window
from bot.domain.quota import QuotaRules, binding_limit, day
from bot.domain.server_rules import Amounts, ServerRules
from tests.support.factories import NOON, requester

MIDNIGHT = datetime(2026, 11, 22, tzinfo=UTC)
NEXT_MIDNIGHT = MIDNIGHT + timedelta(days=1)
OFFSETS = st.timedeltas(timedelta(hours=-14), timedelta(hours=14)).map(
    lambda by: timedelta(minutes=by // timedelta(minutes=1))
)
MOMENTS = st.datetimes(datetime(2015, 1, 1), datetime(2100, 1, 1), timezones=OFFSETS.map(timezone))  # noqa: DTZ001


def allowance(used: int, amount: int = 5, *, end: datetime = NEXT_MIDNIGHT, extra: int = 0) -> Allowance:
    return Allowance(Limit(Scope.MEMBER, 1, amount, replace(day(NOON), end=end)), used, extra)


def the_day(start: datetime) -> Window:
    number = int(start.strftime("%Y%m%d"))
    return Window(start, start + timedelta(days=1), Period.DAY, number, number)


@pytest.mark.parametrize(
    ("now", "start"),
    [
        (NOON, MIDNIGHT),
        (MIDNIGHT, MIDNIGHT),
        (NEXT_MIDNIGHT - timedelta(microseconds=1), MIDNIGHT),
        (NEXT_MIDNIGHT, NEXT_MIDNIGHT),
        (MIDNIGHT - timedelta(microseconds=1), MIDNIGHT - timedelta(days=1)),
        (datetime(2026, 11, 23, 1, tzinfo=timezone(timedelta(hours=2))), MIDNIGHT),
        (datetime(2026, 11, 21, 23, tzinfo=timezone(timedelta(hours=-2))), MIDNIGHT),
        (datetime(2024, 2, 29, 12, tzinfo=UTC), datetime(2024, 2, 29, tzinfo=UTC)),
    ],
)
def test_a_day_is_the_utc_day(now: datetime, start: datetime) -> None:
    assert day(now) == the_day(start)


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="Windows has no time zone of a process")
def test_a_day_does_not_depend_on_where_the_bot_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("TZ", "America/New_York")
        time.tzset()
        assert day(MIDNIGHT) == the_day(MIDNIGHT)
    time.tzset()


@given(MOMENTS)
def test_every_moment_belongs_to_exactly_one_day(now: datetime) -> None:
    window = day(now)
    assert window.start <= now < window.end
    assert day(window.end).start == window.end
    assert day(window.start) == day(window.end - timedelta(microseconds=1)) == window


def test_a_model_costs_what_the_operator_sets_and_one_credit_otherwise() -> None:
    rules = QuotaRules(Amounts(10), {Model.PKZ_4: 3, Model.PKZ_2: 0})
    assert [rules.cost(model) for model in (Model.PKZ_4, Model.PKZ_2, Model.PKZ_3)] == [3, 0, 1]


def test_a_members_limit_covers_the_day_of_the_request() -> None:
    rules = QuotaRules(Amounts(daily=10), {})
    assert rules.limits(requester(42), ServerRules()) == (Limit(Scope.MEMBER, 42, 10, the_day(MIDNIGHT), place=7),)


@pytest.mark.parametrize(
    ("used", "cost", "binds"),
    [
        (0, 1, False),
        (4, 1, False),
        (5, 1, True),
        (4, 2, True),
        (3, 2, False),
        (5, 0, False),
        (6, 0, True),
        (9, 1, True),
    ],
)
def test_a_limit_binds_when_the_cost_no_longer_fits(used: int, cost: int, *, binds: bool) -> None:
    one = allowance(used)
    assert binding_limit([one], cost) == (one if binds else None)


def test_a_limit_of_zero_binds_from_the_start() -> None:
    assert binding_limit([allowance(0, 0)], 1) is not None


def test_of_several_binding_limits_the_one_that_resets_last_is_returned() -> None:
    today, week, free = allowance(5), allowance(9, 9, end=NEXT_MIDNIGHT + timedelta(days=6)), allowance(0, 50)
    assert binding_limit([today, week, free], 1) is week
    assert binding_limit([week, free, today], 1) is week
    assert binding_limit([free], 1) is None
    assert binding_limit([], 1) is None


@given(st.integers(0, 50), st.integers(0, 50))
def test_the_credits_left_are_never_negative(used: int, amount: int) -> None:
    assert allowance(used, amount).left == max(0, amount - used)
