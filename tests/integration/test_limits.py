"""Every limit, on the real ledger and the real policies: what a request takes, and what comes back."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest

from bot.domain.access import AccessRules
from bot.domain.errors import Blocked, QuotaExceeded, ServerNotAllowed
from bot.domain.models import OF_CREDITS, Job, Model, Scope
from bot.domain.quota import DOLLAR, QuotaRules, day, month
from bot.domain.server_rules import Amounts, Block, LimitKind
from bot.storage import opening
from tests.support.factories import NOON, request, requester
from tests.support.limited_bot import ADMIN, GUILD, REFUSED, STRIKE, UNKNOWN, LimitedBot, limited_bot
from tests.support.many_entries import EVERY_LIMIT, fill
from tests.support.query_plans import reservation_plan

if TYPE_CHECKING:
    from pathlib import Path

    from bot.domain.models import Requester

RULES = QuotaRules(Amounts(), costs={Model.PKZ_4: 2}, prices={Model.PKZ_4: 90_000})
MONEY = {(Scope.MONEY, "day"), (Scope.MONEY, "month")}
COUNTERS = {(Scope.ATTEMPTS, "hour"), (Scope.UNKNOWN, "day"), (Scope.STRIKES, "day")}


def only(**limits: Any) -> QuotaRules:
    return replace(RULES, **limits)


# One limit each, with room for two requests of 2 credits and 9 cents.
ONE_LIMIT = {
    "member day": only(member=Amounts(daily=5)),
    "member month": only(member=Amounts(monthly=5)),
    "server day": only(server=Amounts(daily=5)),
    "server month": only(server=Amounts(monthly=5)),
    "bot day": only(bot=Amounts(daily=5)),
    "bot month": only(bot=Amounts(monthly=5)),
    "money day": only(budget=Amounts(daily=250_000)),
    "money month": only(budget=Amounts(monthly=250_000)),
}
OF_THE_SERVER = {
    "everyone": (LimitKind.EVERYONE, 0, Scope.MEMBER_HERE),
    "role": (LimitKind.ROLE, 3, Scope.MEMBER_HERE),
    "own": (LimitKind.MEMBER, 1, Scope.MEMBER_HERE),
    "server": (LimitKind.SERVER, 0, Scope.GUILD),
}


async def refusal(bot: LimitedBot, by: Requester | None = None) -> QuotaExceeded:
    with pytest.raises(QuotaExceeded) as refused:
        await bot.ask(by)
    return refused.value


# --- what a limit holds, and what comes back ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ONE_LIMIT)
async def test_a_limit_admits_what_fits_and_a_release_makes_room(tmp_path: Path, name: str) -> None:
    async with limited_bot(tmp_path, ONE_LIMIT[name]) as bot:
        first, second = await bot.ask(), await bot.ask()
        refused = await refusal(bot)
        limit = refused.allowance.limit
        names = {Scope.GUILD: "server"}
        assert f"{names.get(limit.scope, limit.scope)} {limit.window.period}" == name
        assert refused.allowance.used == (180_000 if limit.scope is Scope.MONEY else 4)
        await bot.release(first)
        third = await bot.ask()
        await bot.deliver(second)
        await bot.deliver(third)
        await refusal(bot)
        assert await bot.unexplained() == []


@pytest.mark.parametrize("name", OF_THE_SERVER)
@pytest.mark.parametrize("period", ["daily", "monthly"])
async def test_what_the_admins_set_is_enforced_and_given_back(tmp_path: Path, name: str, period: str) -> None:
    kind, subject, scope = OF_THE_SERVER[name]
    by = replace(requester(), roles=frozenset({3, 4}))
    async with limited_bot(tmp_path, RULES) as bot:
        await bot.policies.set_limit(bot.change("limit"), kind, subject, Amounts(**{period: 5}))
        first, _ = await bot.ask(by), await bot.ask(replace(requester(), roles=by.roles))
        found = (await refusal(bot, replace(requester(), roles=by.roles))).allowance
        assert (found.limit.scope, found.used, found.limit.amount) == (scope, 4, 5)
        assert found.limit.window == (day(NOON) if period == "daily" else month(NOON))
        await bot.release(first)
        await bot.ask(replace(requester(), roles=by.roles))
        await bot.ask(replace(requester(), guild_id=8, roles=by.roles))  # another server has its own rules
        await bot.policies.set_limit(bot.change("limit"), kind, subject, Amounts())
        await bot.ask(replace(requester(), roles=by.roles))


async def test_a_limit_of_one_server_does_not_count_what_is_used_in_another(tmp_path: Path) -> None:
    async with limited_bot(tmp_path, only(member=Amounts(daily=100))) as bot:
        await bot.policies.set_limit(bot.change("limit"), LimitKind.EVERYONE, 0, Amounts(daily=2))
        for _ in range(3):
            await bot.ask(replace(requester(), guild_id=8))
        await bot.ask()
        assert (await refusal(bot)).allowance.limit.scope is Scope.MEMBER_HERE
        assert (await bot.used())[Scope.MEMBER_HERE, "day"] == 2
        elsewhere = await bot.used(replace(requester(), guild_id=8))
        assert elsewhere[Scope.MEMBER, "day"] == 8, "the operator's limit counts all servers"


@pytest.mark.parametrize(
    ("reason", "generated", "stays"),
    [
        (REFUSED, False, {}),
        ("not_started:cancelled", False, {}),
        (STRIKE, False, {(Scope.STRIKES, "day"): 1}),
        (UNKNOWN, False, {(Scope.UNKNOWN, "day"): 1, **dict.fromkeys(MONEY, 90_000)}),
        ("answer_unusable", False, {(Scope.UNKNOWN, "day"): 1, **dict.fromkeys(MONEY, 90_000)}),
        ("output_unreachable", True, dict.fromkeys(MONEY, 90_000)),
        ("undeliverable", True, {(Scope.UNKNOWN, "day"): 1, **dict.fromkeys(MONEY, 90_000)}),
    ],
)
async def test_a_release_gives_back_all_but_what_it_cost_the_operator(
    tmp_path: Path, reason: str, stays: dict[Any, int], *, generated: bool
) -> None:
    async with limited_bot(tmp_path, EVERY_LIMIT) as bot:
        rules = replace(EVERY_LIMIT, costs=RULES.costs, prices=RULES.prices)
        bot.admission.quota = rules
        job = await bot.ask()
        held = await bot.used()
        assert {held[key] for key in held if key[0] in OF_CREDITS} == {2}
        assert {held[key] for key in MONEY} == {90_000}
        await bot.release(await bot.generate(job) if generated else job, reason)
        after = {key: used for key, used in (await bot.used()).items() if used}
        assert after == {(Scope.ATTEMPTS, "hour"): 1, **stays}
        assert await bot.unexplained() == []


@pytest.mark.parametrize(
    ("limits", "reason", "scope"),
    [
        ({"attempts_hourly": 2}, "not_started:cancelled", Scope.ATTEMPTS),
        ({"unknown_daily": 2}, UNKNOWN, Scope.UNKNOWN),
        ({"strikes_daily": 2}, STRIKE, Scope.STRIKES),
    ],
)
async def test_what_nobody_gets_back_ends_with_its_window(
    tmp_path: Path, limits: dict[str, int], reason: str, scope: Scope
) -> None:
    async with limited_bot(tmp_path, only(**limits)) as bot:
        for _ in range(2):
            await bot.release(await bot.ask(), reason)
        found = (await refusal(bot)).allowance
        assert (found.limit.scope, found.used) == (scope, 2)
        await bot.ask(replace(requester(2)))  # it is nobody else's
        await bot.ask(replace(requester(), asked_at=found.limit.window.end))
        await refusal(bot, replace(requester(), asked_at=found.limit.window.end - timedelta(milliseconds=1)))


async def test_the_exempt_are_only_free_of_limits_of_their_own(tmp_path: Path) -> None:
    rules = only(member=Amounts(0, 0), exempt_members=frozenset({1}), exempt_roles=frozenset({3}), bot=Amounts(5))
    async with limited_bot(tmp_path, rules) as bot:
        await refusal(bot, requester(2))
        await bot.ask(requester(1))
        await bot.ask(replace(requester(2), roles=frozenset({3})))
        assert (await refusal(bot, requester(1))).allowance.limit.scope is Scope.BOT


async def test_a_day_and_a_month_bind_together_and_the_one_that_resets_last_is_named(tmp_path: Path) -> None:
    async with limited_bot(tmp_path, only(member=Amounts(daily=4, monthly=5))) as bot:
        for _ in range(2):
            await bot.ask()
        assert (await refusal(bot)).allowance.limit.window == month(NOON), "neither has room for 2 credits"


async def test_a_new_day_gives_a_new_day_of_the_same_month(tmp_path: Path) -> None:
    tomorrow, next_month = NOON + timedelta(days=1), datetime(2026, 12, 1, tzinfo=UTC)
    async with limited_bot(tmp_path, only(member=Amounts(daily=4, monthly=6))) as bot:
        await bot.ask()
        await bot.ask()
        await bot.ask(requester(at=tomorrow))
        found = (await refusal(bot, requester(at=tomorrow))).allowance
        assert (found.limit.window, found.used) == (month(NOON), 6)
        await bot.ask(requester(at=next_month))
        assert (await bot.used(requester(at=next_month)))[Scope.MEMBER, "month"] == 2


async def test_a_change_of_the_time_zone_loses_no_credit_and_counts_none_twice(tmp_path: Path) -> None:
    late = datetime(2026, 11, 30, 20, tzinfo=UTC)  # December in Kathmandu
    there = ZoneInfo("Asia/Kathmandu")
    async with limited_bot(tmp_path, only(member=Amounts(4, 100))) as bot:
        first, second = await bot.ask(requester(at=late)), await bot.ask(requester(at=late))
        await refusal(bot, requester(at=late))
    async with limited_bot(tmp_path, only(member=Amounts(4, 100), zone=there)) as bot:
        november = requester(at=late - timedelta(hours=3))
        assert (await bot.used(november))[Scope.MEMBER, "day"] == 4, "each stays in the day that it was counted in"
        assert (await bot.used(requester(at=late)))[Scope.MEMBER, "month"] == 0
        await bot.ask(requester(at=late))
        await bot.release(first)
        await bot.deliver(second)
        assert (await bot.used(november))[Scope.MEMBER, "month"] == 2
        assert (await bot.used(requester(at=late)))[Scope.MEMBER, "month"] == 2
        assert await bot.unexplained() == []


# --- extra credits --------------------------------------------------------------------------------------------------


async def test_extra_credits_are_spent_after_the_allowance_and_given_back(tmp_path: Path) -> None:
    async with limited_bot(tmp_path, only(member=Amounts(daily=3))) as bot:
        assert await bot.grant(1, 3) == 3
        await bot.ask()  # 2 of 3
        mixed = await bot.ask()  # 1 of the allowance, 1 extra
        assert await bot.grant(1, 0) == 2
        last = await bot.ask()
        assert await bot.grant(1, 0) == 0
        assert (await refusal(bot)).allowance.left == 0
        await bot.release(mixed)
        assert await bot.grant(1, 0) == 1
        await bot.release(last)
        assert await bot.grant(1, 0) == 3
        assert (await bot.used())[Scope.MEMBER, "day"] == 2
        assert await bot.unexplained() == []


async def test_extra_credits_survive_a_restart_and_a_delivery_uses_them_up(tmp_path: Path) -> None:
    async with limited_bot(tmp_path, only(member=Amounts(daily=0))) as bot:
        await bot.grant(1, 5)
        await bot.deliver(await bot.ask())
        held = await bot.ask()
    async with limited_bot(tmp_path, only(member=Amounts(daily=0))) as bot:
        assert await bot.grant(1, 0) == 1
        await refusal(bot)
        await bot.release(held)
        assert await bot.grant(1, 0) == 3
        tomorrow = requester(at=NOON + timedelta(days=40))
        await bot.ask(tomorrow)  # they do not end with a day or a month
        assert await bot.grant(1, 0) == 1


async def test_extra_credits_taken_back_never_fall_below_zero(tmp_path: Path) -> None:
    async with limited_bot(tmp_path, only(member=Amounts(daily=0))) as bot:
        await bot.grant(1, 5)
        held = await bot.ask()
        assert await bot.grant(1, -100) == 0
        assert await bot.grant(1, -1) == 0
        await refusal(bot)
        await bot.release(held)  # what was held when the rest was taken back is the member's again
        assert await bot.grant(1, 0) == 2
        await bot.ask()
        rows = await bot.database.run("SELECT amount, reason, actor FROM grants")
        assert [tuple(row) for row in rows] == [(5, "thanks", ADMIN), (-3, "thanks", ADMIN)]


async def test_extra_credits_count_for_one_member_in_one_server(tmp_path: Path) -> None:
    async with limited_bot(tmp_path, only(member=Amounts(daily=0))) as bot:
        await bot.grant(1, 9)
        for other in (requester(2), replace(requester(), guild_id=8), replace(requester(), guild_id=None)):
            assert (await refusal(bot, other)).allowance.left == 0
        await bot.ask()


@pytest.mark.parametrize("rules", [only(server=Amounts(daily=3)), only(bot=Amounts(daily=3))])
async def test_extra_credits_do_not_lift_what_all_share(tmp_path: Path, rules: QuotaRules) -> None:
    async with limited_bot(tmp_path, replace(rules, member=Amounts(daily=0))) as bot:
        await bot.grant(1, 100)
        await bot.ask()
        await refusal(bot)


async def test_extra_credits_pay_for_a_limit_that_was_lowered_only_what_a_request_costs(tmp_path: Path) -> None:
    async with limited_bot(tmp_path, only(member=Amounts(daily=10))) as bot:
        for _ in range(5):
            await bot.ask()
        bot.admission.quota = only(member=Amounts(daily=1))
        await bot.grant(1, 2)
        await bot.ask()
        assert await bot.grant(1, 0) == 0
        assert (await bot.used())[Scope.MEMBER, "day"] == 10


# --- who may ask at all ---------------------------------------------------------------------------------------------


async def test_a_block_holds_where_it_was_set_and_until_it_ends(tmp_path: Path) -> None:
    async with limited_bot(tmp_path, RULES) as bot:
        until = NOON + timedelta(hours=1)
        here = Block(GUILD, is_server=False, subject=1, reason="spam", until=until, actor=ADMIN, at=NOON)
        await bot.policies.block(bot.change("block"), here)
        with pytest.raises(Blocked) as refused:
            await bot.ask()
        assert refused.value.block == here
        await bot.ask(replace(requester(), guild_id=8))
        await bot.ask(replace(requester(), guild_id=None))
        await bot.ask(requester(at=until))
        assert await bot.policies.unblock(bot.change("unblock"), GUILD, 1, is_server=False)
        assert not await bot.policies.unblock(bot.change("unblock"), GUILD, 1, is_server=False)
        await bot.ask()


async def test_the_operator_blocks_a_member_everywhere_and_a_whole_server(tmp_path: Path) -> None:
    async with limited_bot(tmp_path, RULES) as bot:
        everywhere = Block(0, is_server=False, subject=1, reason="fraud", until=None, actor=ADMIN, at=NOON)
        server = Block(0, is_server=True, subject=8, reason="spam", until=None, actor=ADMIN, at=NOON)
        for block in (everywhere, server):
            await bot.policies.block(bot.change("block", 0), block)
        for by in (requester(), replace(requester(), guild_id=None), replace(requester(2), guild_id=8)):
            with pytest.raises(Blocked):
                await bot.ask(by)
        await bot.ask(requester(2))
        await bot.ask(requester(8))  # a member with the number of a blocked server
        assert await bot.policies.active_blocks(0, now=NOON) == [everywhere, server]


async def test_a_request_from_elsewhere_holds_nothing(tmp_path: Path) -> None:
    async with limited_bot(tmp_path, EVERY_LIMIT, AccessRules(servers=frozenset({8}))) as bot:
        with pytest.raises(ServerNotAllowed):
            await bot.ask()
        assert await bot.database.run("SELECT 1 FROM jobs UNION ALL SELECT 1 FROM totals") == []


async def test_rules_are_in_force_although_whoever_set_them_was_cut_off(tmp_path: Path) -> None:
    async with limited_bot(tmp_path, RULES) as bot:
        await bot.ask()  # the server's rules are in memory now
        setting = bot.policies.set_limit(bot.change("limit"), LimitKind.SERVER, 0, Amounts(daily=0))
        task = asyncio.create_task(setting)
        await asyncio.sleep(0)  # it is on its way to the database
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await bot.database.drained()
        await refusal(bot)


# --- many at once ---------------------------------------------------------------------------------------------------

AT_ONCE = 200
FREE = QuotaRules(Amounts(), costs={}, prices=dict.fromkeys(Model, 10_000))
RACES: dict[str, tuple[QuotaRules, dict[LimitKind, int]]] = {
    "member day": (replace(FREE, member=Amounts(daily=17)), {}),
    "member month": (replace(FREE, member=Amounts(monthly=17)), {}),
    "member here": (FREE, {LimitKind.MEMBER: 1}),
    "everyone here": (FREE, {LimitKind.EVERYONE: 0}),
    "role": (FREE, {LimitKind.ROLE: 3}),
    "server": (replace(FREE, server=Amounts(17)), {}),
    "server, set by its admins": (FREE, {LimitKind.SERVER: 0}),
    "server month": (replace(FREE, server=Amounts(monthly=17)), {}),
    "bot": (replace(FREE, bot=Amounts(17)), {}),
    "bot month": (replace(FREE, bot=Amounts(monthly=17)), {}),
    "money": (replace(FREE, budget=Amounts(179_999)), {}),
    "money month": (replace(FREE, budget=Amounts(monthly=170_000)), {}),
    "attempts": (replace(FREE, attempts_hourly=17), {}),
    "extra credits": (replace(FREE, member=Amounts(daily=5)), {}),
    "all at once": (
        replace(
            FREE,
            member=Amounts(18, 19),
            server=Amounts(20, 21),
            bot=Amounts(22, 17),
            budget=Amounts(DOLLAR, DOLLAR),
            attempts_hourly=23,
            unknown_daily=1,
            strikes_daily=1,
        ),
        {LimitKind.ROLE: 3, LimitKind.SERVER: 0},
    ),
}


@pytest.mark.parametrize("name", RACES)
async def test_of_200_requests_at_once_a_limit_admits_exactly_what_it_says(tmp_path: Path, name: str) -> None:
    rules, of_the_server = RACES[name]
    roles = frozenset({3, 4})
    async with limited_bot(tmp_path, rules) as bot:
        for kind, subject in of_the_server.items():
            await bot.policies.set_limit(
                bot.change("limit"), kind, subject, Amounts(17 if name != "all at once" else 30)
            )
        if name == "extra credits":
            await bot.grant(1, 12)
        by = [replace(requester(), roles=roles) for _ in range(AT_ONCE)]
        outcomes = await asyncio.gather(*map(bot.ask, by), return_exceptions=True)
        jobs = [one for one in outcomes if isinstance(one, Job)]
        refused = [one for one in outcomes if isinstance(one, QuotaExceeded)]
        assert (len(jobs), len(refused)) == (17, AT_ONCE - 17), name
        # what is given back while others ask is taken again, and no more
        again = [bot.ask(replace(requester(), roles=roles)) for _ in range(AT_ONCE)]
        mixed = [*(bot.release(job) for job in jobs[:6]), *again]
        taken = await asyncio.gather(*mixed, return_exceptions=True)
        admitted = sum(isinstance(one, Job) for one in taken[6:])
        assert admitted == (0 if name == "attempts" else 6), name
        assert await bot.unexplained() == []


async def test_many_members_at_once_share_a_server_a_bot_and_a_budget(tmp_path: Path) -> None:
    rules = replace(FREE, member=Amounts(3), server=Amounts(40), bot=Amounts(90), budget=Amounts(880_000))
    async with limited_bot(tmp_path, rules) as bot:
        by = [replace(requester(n % 50), guild_id=7 + n % 3) for n in range(4 * AT_ONCE)]
        outcomes = await asyncio.gather(*map(bot.ask, by), return_exceptions=True)
        jobs = [one for one in outcomes if isinstance(one, Job)]
        assert len(jobs) == 88, "of 0.88 dollars at a cent each"
        of_servers = [sum(job.requester.guild_id == guild for job in jobs) for guild in (7, 8, 9)]
        of_members = [sum(job.requester.user_id == member for job in jobs) for member in range(50)]
        assert max(of_servers) <= 40
        assert max(of_members) <= 3
        binding = {one.allowance.limit.scope for one in outcomes if isinstance(one, QuotaExceeded)}
        assert binding <= {Scope.MEMBER, Scope.GUILD, Scope.MONEY}
        assert await bot.unexplained() == []


# --- how a check is carried out -------------------------------------------------------------------------------------


async def test_a_check_looks_up_totals_by_their_key_however_many_entries_there_are(tmp_path: Path) -> None:
    async with opening.opened(tmp_path / "bot.sqlite3"):
        pass
    fill(tmp_path / "bot.sqlite3", 4_000, now=NOON)
    async with limited_bot(tmp_path, EVERY_LIMIT) as bot:
        assert await bot.unexplained() == []
        await bot.database.run("ANALYZE")
        terms = await bot.admission.admit(request(), requester(), None)
        plan = await reservation_plan(bot.database, bot.ledger, terms)
    steps = [line.strip() for line in plan]
    lookups = [step for step in steps if "totals" in step]
    assert len(lookups) == len(terms.limits) + 1, "one for each limit, and one for the extra credits"
    assert all(
        step.startswith("SEARCH totals USING PRIMARY KEY (scope=? AND subject=? AND place=?") for step in lookups
    )
    scans = {step for step in steps if step.startswith("SCAN")}
    assert scans == {"SCAN CONSTANT ROW", "SCAN balance", "SCAN lacking"}, "each has one row"
