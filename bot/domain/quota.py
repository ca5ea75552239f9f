"""What a request costs, which limits apply to it, and which of them binds. Pure: the clock and the sums come from
outside.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

from bot.domain.models import OF_CREDITS, OF_MEMBERS, Limit, Period, Scope, Window
from bot.domain.server_rules import NOTHING_SET, UNLIMITED, Amounts, ServerRules

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import tzinfo

    from bot.domain.models import Allowance, Model, Requester

DOLLAR = 1_000_000  # money is counted in millionths
_HOUR = timedelta(hours=1)
_REMEMBERED = 100  # days, and months: every request asks several times for those of today


def day(at: datetime, zone: tzinfo = UTC) -> Window:
    """The calendar day around `at` in a time zone; a change of the clock makes it longer or shorter."""
    return _day(_date(at, zone), zone)


def month(at: datetime, zone: tzinfo = UTC) -> Window:
    """The calendar month around `at` in a time zone."""
    return _month(_date(at, zone).replace(day=1), zone)


@lru_cache(_REMEMBERED)
def _day(of: date, zone: tzinfo) -> Window:
    number = number_of(of)
    return Window(_midnight(of, zone), _midnight(of + timedelta(days=1), zone), Period.DAY, number, number)


@lru_cache(_REMEMBERED)
def _month(first: date, zone: tzinfo) -> Window:
    following = (first + timedelta(days=31)).replace(day=1)
    last = following - timedelta(days=1)
    return Window(_midnight(first, zone), _midnight(following, zone), Period.MONTH, number_of(first), number_of(last))


def hour(at: datetime) -> Window:
    """The hour of UTC around `at`."""
    start = at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    number = int(start.timestamp()) // 3600
    return Window(start, start + _HOUR, Period.HOUR, number, number)


def _date(at: datetime, zone: tzinfo) -> date:
    """The day that `at` counts in: a clock that is set back over midnight does not begin the old day again."""
    today = at.astimezone(zone).date()
    return today if at < _day(today, zone).end else today + timedelta(days=1)


def _midnight(of: date, zone: tzinfo) -> datetime:
    """The first moment of a day, in UTC: where the clock skips midnight, the moment it is set."""
    return datetime.combine(of, time(), zone).astimezone(UTC)


def number_of(of: date) -> int:
    """A day as it is stored: 20261127."""
    return of.year * 10_000 + of.month * 100 + of.day


@dataclass(frozen=True, slots=True)
class QuotaRules:
    """The operator's rules. `costs` are credits, `prices` and the `budget` millionths of a dollar. A limit counts in
    calendar days and months of `zone`.
    """

    member: Amounts
    costs: Mapping[Model, int]
    server: Amounts = NOTHING_SET
    bot: Amounts = NOTHING_SET
    budget: Amounts = NOTHING_SET
    prices: Mapping[Model, int] = field(default_factory=dict)
    zone: tzinfo = UTC
    attempts_hourly: int | None = None
    unknown_daily: int | None = None
    strikes_daily: int | None = None
    exempt_members: frozenset[int] = frozenset()
    exempt_roles: frozenset[int] = frozenset()

    def cost(self, model: Model) -> int:
        return self.costs.get(model, 1)

    def price(self, model: Model) -> int:
        return self.prices.get(model, 0)

    def counted_on(self, asked_at: datetime) -> int:
        """The day that a request of `asked_at` (Discord's clock, not ours) counts in, as 20261127."""
        return day(asked_at, self.zone).first

    def window(self, at: datetime, *, monthly: bool) -> Window:
        return (month if monthly else day)(at, self.zone)

    def limits(self, requester: Requester, rules: ServerRules) -> tuple[Limit, ...]:
        """Every limit that applies to a request by `requester`, in a server with `rules`."""
        return (*self._credits(requester, rules), *self.money(requester.asked_at), *self._counters(requester))

    def _credits(self, requester: Requester, rules: ServerRules) -> Iterable[Limit]:
        for window in (day(requester.asked_at, self.zone), month(requester.asked_at, self.zone)):
            yield from self._of_member(requester, rules, window)
            place = requester.guild_id
            if place is not None:
                amount = _lower(self.server.of(window.period), rules.server.of(window.period))
                yield from _limit(Scope.GUILD, place, amount, window, place)
            yield from _limit(Scope.BOT, 0, self.bot.of(window.period), window)

    def _of_member(self, requester: Requester, rules: ServerRules, window: Window) -> Iterable[Limit]:
        """The member's own limit: what the server's admins have set counts there, the operator's everywhere."""
        place = requester.guild_id or 0
        if requester.user_id in self.exempt_members or self.exempt_roles & requester.roles:
            return
        set_here = rules.of_member(requester.user_id, requester.roles, window.period)
        if set_here is None:
            amount = self.member.of(window.period)
            yield from _limit(Scope.MEMBER, requester.user_id, amount, window, place)
        elif set_here != UNLIMITED:
            yield Limit(Scope.MEMBER_HERE, requester.user_id, set_here, window, place)

    def money(self, at: datetime) -> tuple[Limit, ...]:
        """The budgets around `at`."""
        windows = (day(at, self.zone), month(at, self.zone))
        return tuple(
            limit for window in windows for limit in _limit(Scope.MONEY, 0, self.budget.of(window.period), window)
        )

    def _counters(self, requester: Requester) -> Iterable[Limit]:
        """What nobody gets back: it costs the bot something, whatever becomes of the request."""
        today, subject = day(requester.asked_at, self.zone), requester.user_id
        yield from _limit(Scope.ATTEMPTS, subject, self.attempts_hourly, hour(requester.asked_at))
        yield from _limit(Scope.UNKNOWN, subject, self.unknown_daily, today)
        yield from _limit(Scope.STRIKES, subject, self.strikes_daily, today)


def _limit(scope: Scope, subject: int, amount: int | None, window: Window, place: int = 0) -> Iterable[Limit]:
    if amount is not None:
        yield Limit(scope, subject, amount, window, place)


def _lower(operators: int | None, admins: int | None) -> int | None:
    """A server's admins may lower what the operator allows the server, and not raise it."""
    set_ = [amount for amount in (operators, admins) if amount is not None and amount != UNLIMITED]
    return min(set_, default=None)


def needed(scope: Scope, cost: int, price: int) -> int:
    """How much of a limit one request takes up."""
    if scope in OF_CREDITS:
        return cost
    return price if scope is Scope.MONEY else 1


def from_extra(allowances: Sequence[Allowance], cost: int) -> int:
    """How much of `cost` the members' limits have no room for."""
    over = (one.used + cost - one.limit.amount for one in allowances if one.limit.scope in OF_MEMBERS)
    return min(cost, max(0, *over, 0))


def binding_limit(allowances: Sequence[Allowance], cost: int, price: int = 0) -> Allowance | None:
    """The allowance that has no room for a request; of several, the one that resets last."""
    short = [allowance for allowance in allowances if _is_short(allowance, cost, price)]
    return max(short, key=lambda allowance: allowance.limit.window.end, default=None)


def _is_short(allowance: Allowance, cost: int, price: int) -> bool:
    limit = allowance.limit
    if allowance.used + needed(limit.scope, cost, price) <= limit.amount:
        return False
    return limit.scope not in OF_MEMBERS or allowance.extra < max(1, from_extra([allowance], cost))
