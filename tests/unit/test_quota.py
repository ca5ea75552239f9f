"""Quota days, costs, and which limit applies."""

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.domain.models import (
    OF_CREDITS,
    OF_MEMBERS,
    Allowance,
    Limit,
    Model,
    Period,
    Requester,
    Scope,
    Window,
)
from bot.domain.quota import DOLLAR, QuotaRules, binding_limit, day, from_extra, hour, month, needed
from bot.domain.server_rules import UNLIMITED, Amounts, LimitKind, ServerRules
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


# --- windows in time zones ------------------------------------------------------------------------------------------

BERLIN, SAO_PAULO, KATHMANDU = map(ZoneInfo, ("Europe/Berlin", "America/Sao_Paulo", "Asia/Kathmandu"))
ST_JOHNS = ZoneInfo("America/St_Johns")  # until 2011, one minute past midnight was set back to the day before
ZONES = st.sampled_from(
    (BERLIN, SAO_PAULO, KATHMANDU, ST_JOHNS, *map(ZoneInfo, ("Pacific/Apia", "America/Havana", "Asia/Gaza")), UTC)
)
# Most moments are near a midnight or a change of a clock: whole days, or Sundays around midnight, and a few minutes.
NEAR_MIDNIGHT = st.builds(
    lambda days, minutes, seconds: (
        datetime(1995, 1, 1, tzinfo=UTC) + timedelta(days=days, minutes=minutes, seconds=seconds)
    ),
    st.integers(0, 365 * 60),
    st.integers(0, 24 * 60),
    st.sampled_from((-1, 0, 1)),
)


@pytest.mark.parametrize(
    ("zone", "at", "start", "hours"),
    [
        (BERLIN, datetime(2026, 3, 29, 12, tzinfo=UTC), datetime(2026, 3, 28, 23, tzinfo=UTC), 23),
        (BERLIN, datetime(2026, 10, 25, 12, tzinfo=UTC), datetime(2026, 10, 24, 22, tzinfo=UTC), 25),
        (BERLIN, datetime(2026, 7, 1, 12, tzinfo=UTC), datetime(2026, 6, 30, 22, tzinfo=UTC), 24),
        # 2018-11-04 had no midnight in São Paulo: the day began at one o'clock
        (SAO_PAULO, datetime(2018, 11, 4, 12, tzinfo=UTC), datetime(2018, 11, 4, 3, tzinfo=UTC), 23),
        # and the last hour of 2018-02-17 was there twice
        (SAO_PAULO, datetime(2018, 2, 17, 12, tzinfo=UTC), datetime(2018, 2, 17, 2, tzinfo=UTC), 25),
        (KATHMANDU, datetime(2026, 11, 22, 18, 15, tzinfo=UTC), datetime(2026, 11, 22, 18, 15, tzinfo=UTC), 24),
    ],
)
def test_a_day_is_as_long_as_the_clock_makes_it(zone: ZoneInfo, at: datetime, start: datetime, hours: int) -> None:
    window = day(at, zone)
    assert (window.start, window.end) == (start, start + timedelta(hours=hours))
    assert window.first == window.last == int(at.astimezone(zone).strftime("%Y%m%d"))


@pytest.mark.parametrize("zone", [BERLIN, SAO_PAULO, KATHMANDU, UTC])
def test_a_month_starts_and_ends_with_its_days(zone: ZoneInfo) -> None:
    at = datetime(2018, 2, 14, 12, tzinfo=UTC)
    window = month(at, zone)
    assert (window.first, window.last, window.period) == (20180201, 20180228, Period.MONTH)
    assert window.start == day(window.start, zone).start
    assert window.end == day(window.end, zone).start
    assert day(window.end, zone).first == 20180301


def test_a_month_may_have_29_days_or_follow_a_year() -> None:
    assert month(datetime(2024, 2, 29, tzinfo=UTC)).last == 20240229
    december = month(datetime(2026, 12, 31, 23, 59, tzinfo=UTC))
    assert (december.first, december.last, december.end) == (20261201, 20261231, datetime(2027, 1, 1, tzinfo=UTC))


def test_a_clock_that_is_set_back_over_midnight_does_not_begin_the_old_day_again() -> None:
    before, after = (datetime(2009, 11, 1, hour, minute, tzinfo=UTC) for hour, minute in ((2, 30), (2, 31)))
    assert [at.astimezone(ST_JOHNS).day for at in (before, after)] == [1, 31]
    assert day(before, ST_JOHNS) == day(after, ST_JOHNS)
    assert month(before, ST_JOHNS) == month(after, ST_JOHNS)


@given(ZONES, NEAR_MIDNIGHT)
def test_every_moment_lies_in_exactly_one_day_and_one_month_of_a_zone(zone: ZoneInfo, at: datetime) -> None:
    tick = timedelta(microseconds=1)
    for window_of in (day, month):
        window = window_of(at, zone)
        assert window.start <= at < window.end
        assert window_of(window.start, zone) == window_of(window.end - tick, zone) == window
        assert window_of(window.end, zone).start == window.end
        assert window_of(window.start - tick, zone).end == window.start
        assert window_of(window.start - tick, zone).last < window.first
    assert month(at, zone).first <= day(at, zone).first <= month(at, zone).last


@given(ZONES, NEAR_MIDNIGHT)
def test_the_days_of_a_month_cover_it_without_a_gap(zone: ZoneInfo, at: datetime) -> None:
    whole, at = month(at, zone), month(at, zone).start
    while at < whole.end:
        one = day(at, zone)
        assert one.start == at
        assert whole.first <= one.first <= whole.last
        at = one.end
    assert at == whole.end


@given(MOMENTS)
def test_an_hour_is_one_of_the_clock(at: datetime) -> None:
    window = hour(at)
    assert window.start <= at < window.end == window.start + timedelta(hours=1)
    assert window.first == window.last == int(window.start.timestamp()) // 3600
    assert window.period is Period.HOUR


# --- which limits apply ---------------------------------------------------------------------------------------------

EVERYTHING = QuotaRules(
    member=Amounts(10, 100),
    costs={},
    server=Amounts(50, 500),
    bot=Amounts(70, 700),
    budget=Amounts(5 * DOLLAR, 50 * DOLLAR),
    prices={Model.PKZ_4: 90_000},
    zone=BERLIN,
    attempts_hourly=20,
    unknown_daily=3,
    strikes_daily=4,
    exempt_members=frozenset({5}),
    exempt_roles=frozenset({900}),
)


def amounts(rules: QuotaRules, by: Requester, here: ServerRules | None = None) -> dict[tuple[Scope, Period], int]:
    return {(one.scope, one.window.period): one.amount for one in rules.limits(by, here or ServerRules())}


def here(**limits: Amounts) -> ServerRules:
    """Rules of a server: `role_3` is the limit of role 3, `server` and `everyone` have no number."""
    split = {name: name.partition("_") for name in limits}
    return ServerRules({(LimitKind(kind), int(n or 0)): limits[name] for name, (kind, _, n) in split.items()})


def test_every_limit_applies_with_its_own_window_and_subject() -> None:
    by = requester(42)
    assert amounts(EVERYTHING, by) == {
        (Scope.MEMBER, Period.DAY): 10,
        (Scope.MEMBER, Period.MONTH): 100,
        (Scope.GUILD, Period.DAY): 50,
        (Scope.GUILD, Period.MONTH): 500,
        (Scope.BOT, Period.DAY): 70,
        (Scope.BOT, Period.MONTH): 700,
        (Scope.MONEY, Period.DAY): 5 * DOLLAR,
        (Scope.MONEY, Period.MONTH): 50 * DOLLAR,
        (Scope.ATTEMPTS, Period.HOUR): 20,
        (Scope.UNKNOWN, Period.DAY): 3,
        (Scope.STRIKES, Period.DAY): 4,
    }
    found = EVERYTHING.limits(by, ServerRules())
    windows = {Period.DAY: day(NOON, BERLIN), Period.MONTH: month(NOON, BERLIN), Period.HOUR: hour(NOON)}
    subjects = {Scope.GUILD: 7, Scope.BOT: 0, Scope.MONEY: 0}
    for one in found:
        assert one.window == windows[one.window.period]
        assert one.subject == subjects.get(one.scope, 42)
    assert EVERYTHING.counted_on(datetime(2026, 11, 22, 23, 30, tzinfo=UTC)) == 20261123
    assert EVERYTHING.price(Model.PKZ_4) == 90_000
    assert EVERYTHING.price(Model.PKZ_3) == 0


def test_nothing_set_means_no_limit() -> None:
    assert QuotaRules(Amounts(), {}).limits(requester(), ServerRules()) == ()


def test_a_direct_message_counts_for_no_server() -> None:
    scopes = {scope for scope, _ in amounts(EVERYTHING, replace(requester(), guild_id=None))}
    assert scopes == set(Scope) - {Scope.GUILD, Scope.MEMBER_HERE}


@pytest.mark.parametrize(
    ("limits", "roles", "daily"),
    [
        ({}, (), (Scope.MEMBER, 10)),
        ({"everyone": Amounts(3)}, (), (Scope.MEMBER_HERE, 3)),
        ({"role_1": Amounts(3), "role_2": Amounts(8)}, (1, 2), (Scope.MEMBER_HERE, 8)),
        ({"role_1": Amounts(3), "role_2": Amounts(8)}, (1,), (Scope.MEMBER_HERE, 3)),
        ({"role_1": Amounts(3), "role_2": Amounts(8)}, (), (Scope.MEMBER, 10)),
        ({"everyone": Amounts(5), "role_1": Amounts(3)}, (1,), (Scope.MEMBER_HERE, 5)),
        ({"role_1": Amounts(0), "role_2": Amounts(UNLIMITED), "role_3": Amounts(99)}, (1, 2, 3), None),
        ({"member_42": Amounts(1), "role_2": Amounts(UNLIMITED)}, (2,), (Scope.MEMBER_HERE, 1)),
        ({"member_42": Amounts(0)}, (), (Scope.MEMBER_HERE, 0)),
        ({"member_42": Amounts(UNLIMITED)}, (), None),
        ({"member_43": Amounts(1)}, (), (Scope.MEMBER, 10)),
    ],
)
def test_a_members_own_limit_beats_the_best_of_their_roles(
    limits: dict[str, Amounts], roles: tuple[int, ...], daily: tuple[Scope, int] | None
) -> None:
    by = replace(requester(42), roles=frozenset(roles))
    found = amounts(EVERYTHING, by, here(**limits))
    of_members = [(scope, found[scope, Period.DAY]) for scope in OF_MEMBERS if (scope, Period.DAY) in found]
    assert of_members == ([] if daily is None else [daily])
    assert found[Scope.MEMBER, Period.MONTH] == 100, "what is set per day changes nothing per month"


@pytest.mark.parametrize(
    ("operators", "admins", "applies"),
    [(50, 20, 20), (50, 80, 50), (50, UNLIMITED, 50), (50, None, 50), (None, 20, 20), (None, None, None), (0, 9, 0)],
)
def test_the_admins_of_a_server_lower_what_it_may_use_and_never_raise_it(
    operators: int | None, admins: int | None, applies: int | None
) -> None:
    rules = replace(EVERYTHING, server=Amounts(operators, operators))
    found = amounts(rules, requester(), here(server=Amounts(admins, admins)))
    assert found.get((Scope.GUILD, Period.DAY)) == found.get((Scope.GUILD, Period.MONTH)) == applies


@pytest.mark.parametrize("by", [requester(5), replace(requester(), roles=frozenset({1, 900}))])
def test_the_exempt_have_no_limit_of_their_own_and_share_the_others(by: Requester) -> None:
    found = {scope for scope, _ in amounts(EVERYTHING, by, here(everyone=Amounts(1, 1), member_5=Amounts(0)))}
    assert found == set(Scope) - set(OF_MEMBERS)


@pytest.mark.parametrize(
    ("scope", "takes"), [*((scope, 3) for scope in OF_CREDITS), (Scope.MONEY, 90_000), (Scope.ATTEMPTS, 1)]
)
def test_a_request_takes_credits_money_or_one_of_a_limit(scope: Scope, takes: int) -> None:
    assert needed(scope, 3, 90_000) == takes


@pytest.mark.parametrize(
    ("used", "cost", "extra", "taken", "binds"),
    [
        (4, 1, 0, 0, False),
        (5, 1, 1, 1, False),
        (4, 3, 2, 2, False),
        (4, 3, 1, 2, True),
        (9, 2, 2, 2, False),  # the limit has been lowered since: no more than the cost comes from the grant
        (9, 2, 1, 2, True),
        (9, 0, 0, 0, True),
        (9, 0, 1, 0, False),
    ],
)
def test_extra_credits_go_on_where_the_members_limit_ends(
    used: int, cost: int, extra: int, taken: int, *, binds: bool
) -> None:
    one = allowance(used, extra=extra)
    assert from_extra([one], cost) == taken
    assert (binding_limit([one], cost) is one) == binds
    shared = replace(one, limit=replace(one.limit, scope=Scope.GUILD))
    assert from_extra([shared], cost) == 0
    assert (binding_limit([shared], cost) is shared) == (used + cost > 5), "extra credits are no credits of the server"


def test_the_money_of_a_request_has_to_fit_the_budget() -> None:
    budget = Allowance(Limit(Scope.MONEY, 0, 100_000, day(NOON)), 40_000)
    assert binding_limit([budget], 1, 60_000) is None
    assert binding_limit([budget], 1, 60_001) is budget
