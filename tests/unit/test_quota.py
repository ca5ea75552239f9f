"""Days, costs, and the limit that binds."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.domain.models import Allowance, Limit, Model, Scope, Window
from bot.domain.quota import QuotaRules, binding_limit, day
from tests.support.factories import NOON

MIDNIGHT = datetime(2026, 11, 22, tzinfo=UTC)
NEXT = MIDNIGHT + timedelta(days=1)
OFFSETS = st.timedeltas(timedelta(hours=-14), timedelta(hours=14)).map(
    lambda by: timedelta(minutes=by // timedelta(minutes=1))
)
MOMENTS = st.datetimes(datetime(2015, 1, 1), datetime(2100, 1, 1), timezones=OFFSETS.map(timezone))  # noqa: DTZ001


def allowance(used: int, amount: int = 5, *, end: datetime = NEXT) -> Allowance:
    return Allowance(Limit(Scope.MEMBER, 1, amount, Window(MIDNIGHT, end)), used)


@pytest.mark.parametrize(
    ("now", "start"),
    [
        (NOON, MIDNIGHT),
        (MIDNIGHT, MIDNIGHT),
        (NEXT - timedelta(microseconds=1), MIDNIGHT),
        (NEXT, NEXT),
        (MIDNIGHT - timedelta(microseconds=1), MIDNIGHT - timedelta(days=1)),
        (datetime(2026, 11, 23, 1, tzinfo=timezone(timedelta(hours=2))), MIDNIGHT),
        (datetime(2026, 11, 21, 23, tzinfo=timezone(timedelta(hours=-2))), MIDNIGHT),
        (datetime(2024, 2, 29, 12, tzinfo=UTC), datetime(2024, 2, 29, tzinfo=UTC)),
    ],
)
def test_a_day_is_the_utc_day(now: datetime, start: datetime) -> None:
    assert day(now) == Window(start, start + timedelta(days=1))


@given(MOMENTS)
def test_every_moment_is_in_its_day_and_in_no_other(now: datetime) -> None:
    window = day(now)
    assert window.start <= now < window.end
    assert day(window.end).start == window.end
    assert day(window.start) == day(window.end - timedelta(microseconds=1)) == window


def test_a_model_costs_what_the_operator_says_and_one_credit_otherwise() -> None:
    rules = QuotaRules(10, {Model.PKZ_4: 3, Model.PKZ_2: 0})
    assert [rules.cost(model) for model in (Model.PKZ_4, Model.PKZ_2, Model.PKZ_3)] == [3, 0, 1]


def test_a_member_is_held_to_the_day_discord_says_it_is() -> None:
    assert QuotaRules(10, {}).limits(42, NOON) == (Limit(Scope.MEMBER, 42, 10, Window(MIDNIGHT, NEXT)),)


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


def test_a_limit_of_nothing_binds_from_the_start() -> None:
    assert binding_limit([allowance(0, 0)], 1) is not None


def test_of_several_that_bind_the_one_that_returns_last_is_named() -> None:
    today, week, free = allowance(5), allowance(9, 9, end=NEXT + timedelta(days=6)), allowance(0, 50)
    assert binding_limit([today, week, free], 1) is week
    assert binding_limit([week, free, today], 1) is week
    assert binding_limit([free], 1) is None
    assert binding_limit([], 1) is None


@given(st.integers(0, 50), st.integers(0, 50))
def test_what_is_left_is_never_negative(used: int, amount: int) -> None:
    assert allowance(used, amount).left == max(0, amount - used)
