"""The books of `tests.support.abuse_game`: what is used, kept apart from the ledger, and a table of the strategies."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bot.domain.models import Scope
from bot.domain.quota import DOLLAR, needed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from zoneinfo import ZoneInfo

    from bot.domain.models import Limit, Reservation


@dataclass(slots=True)
class Row:
    """What became of one strategy."""

    requests: int = 0
    admitted: int = 0
    pictures: int = 0
    credits: int = 0
    money: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    def add(self, other: Row) -> None:
        self.requests += other.requests
        self.admitted += other.admitted
        self.pictures += other.pictures
        self.credits += other.credits
        self.money += other.money
        self.refused += other.refused


class Books:
    """The game's own account of what is used: by scope, subject, place, and the day or hour of the request."""

    def __init__(self, zone: ZoneInfo) -> None:
        self._zone = zone
        self._used: Counter[tuple[Scope, int, int, int]] = Counter()
        self.extra: defaultdict[tuple[int, int], int] = defaultdict(int)  # what is left, by member and server

    def used(self, limit: Limit) -> int:
        """In the window of a limit; days that do not exist, as 20260231, are empty."""
        place = limit.place if limit.scope is Scope.MEMBER_HERE else 0
        numbers = range(limit.window.first, limit.window.last + 1)
        return sum(self._used[limit.scope, limit.subject, place, number] for number in numbers)

    def lacks(self, limit: Limit, terms: Reservation) -> int:
        """By how much a limit has no room."""
        return self.used(limit) + needed(limit.scope, terms.cost, terms.price) - limit.amount

    def count(self, terms: Reservation, scopes: Sequence[Scope], by: int) -> None:
        who, place = terms.requester.user_id, terms.requester.guild_id
        local = terms.requester.asked_at.astimezone(self._zone)
        day = local.year * 10_000 + local.month * 100 + local.day
        for scope in scopes:
            subject = {Scope.GUILD: place, Scope.BOT: 0, Scope.MONEY: 0}.get(scope, who)
            period = int(terms.requester.asked_at.timestamp() // 3600) if scope is Scope.ATTEMPTS else day
            if subject is not None and (scope is not Scope.MEMBER_HERE or place is not None):
                self._used[scope, subject, place or 0 if scope is Scope.MEMBER_HERE else 0, period] += by


def table(rows: Mapping[str, Row]) -> Iterator[str]:
    """One line for each strategy."""
    yield f"{'strategy':<18}{'requests':>10}{'admitted':>10}{'pictures':>10}{'credits':>10}{'dollars':>11}  why refused"
    for name, row in rows.items():
        why = ", ".join(f"{reason} {times}" for reason, times in row.refused.most_common())
        numbers = f"{row.requests:>10}{row.admitted:>10}{row.pictures:>10}{row.credits:>10}{row.money / DOLLAR:>11.2f}"
        yield f"{name:<18}{numbers}  {why}"
