"""A game of 100 accounts against the limits, over days of virtual time: the real admission, rules, and ledger on SQLite
in memory. The game keeps books of its own, and what the ledger decides has to agree with them.
"""

from __future__ import annotations

import random
import sqlite3
from collections import Counter, defaultdict
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Any

from bot.domain.errors import QuotaExceeded, RequestRejected
from bot.domain.models import OF_MEMBERS, Job, Output, Scope
from bot.domain.quota import DOLLAR
from bot.domain.server_rules import UNLIMITED, Amounts, Change, LimitKind
from bot.jobs.admission import Admission
from bot.storage.ledger import Ledger
from bot.storage.policies import Policies
from tests.support.abuse_books import Books, Row
from tests.support.abuse_setting import Setting
from tests.support.abuse_strategies import (
    COMMUNITIES,
    MEMBER_ROLE,
    OWN_SERVER,
    PAID,
    STRATEGIES,
    SUPPORTER_ROLE,
    VIP_ROLE,
    Account,
    Attempt,
    End,
    account_id,
    account_made,
)
from tests.support.factories import request, requester
from tests.support.inline_database import InlineDatabase, copied
from tests.support.totals import unexplained

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from bot.domain.models import Limit, Requester, Reservation

HONEST = "honest"
SHARED = (Scope.GUILD, Scope.BOT, Scope.MONEY)
ACCOUNTS, HONEST_ACCOUNTS = 100, 58
ADMIN = 1
_SOMEBODY = requester()


@dataclass(frozen=True, slots=True)
class Running:
    attempt: Attempt
    terms: Reservation
    job: Job
    extra: int


class Game:
    """One game of one seed; `broken` says which promises were not kept."""

    def __init__(self, number: int, template: sqlite3.Connection) -> None:
        self.chance = random.Random(number)  # noqa: S311 - a game, no secret
        self.setting = Setting.draw(self.chance)
        self.rows: defaultdict[str, Row] = defaultdict(Row)
        self.broken: list[str] = []
        self.books = Books(self.setting.quota.zone)  # type: ignore[arg-type]  # it is one of ZONES
        self._template = template
        self._now = self.setting.calendar.start
        self._events: list[tuple[datetime, int, Attempt | Running | tuple[int, int, int]]] = []
        self._numbers = count(1)
        self._ids = [10**17]
        self._pictures: set[str] = set()
        self._billed: Counter[int] = Counter()  # millionths of a dollar by local day

    def play(self) -> Game:
        with closing(copied(self._template)) as raw:
            raw.row_factory = sqlite3.Row
            self.store = InlineDatabase(raw)
            self.ledger = Ledger(self.store, spool=None)  # type: ignore[arg-type]  # no file is written
            self.policies = Policies(self.store)
            self.admission = Admission(
                quota=self.setting.quota,
                access=self.setting.access,
                policies=self.policies,
                repository=self.ledger,
                clock=lambda: self._now,
            )
            self._prepare()
            while self._events:
                self._next_moment()
            self._check_end(raw)
        return self

    # --- before ------------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        for guild, kind, subject, amounts in (
            (12, LimitKind.ROLE, MEMBER_ROLE, Amounts(3)),
            (12, LimitKind.ROLE, SUPPORTER_ROLE, Amounts(6, 12)),
            (13, LimitKind.ROLE, VIP_ROLE, Amounts(9)),
            (13, LimitKind.EVERYONE, 0, Amounts(2, 5)),
            (14, LimitKind.SERVER, 0, Amounts(self.chance.choice((None, None, 30)), None)),
            (OWN_SERVER, LimitKind.EVERYONE, 0, Amounts(UNLIMITED, UNLIMITED)),
            (OWN_SERVER, LimitKind.SERVER, 0, Amounts(UNLIMITED, UNLIMITED)),
        ):
            if self.setting.roomy and kind is LimitKind.SERVER:
                continue
            change = Change(ADMIN, guild, "limit", self._now)
            self._run(self.policies.set_limit(change, kind, subject, amounts))
        for guild in (*COMMUNITIES, OWN_SERVER, 71, 72, 73):  # read once: then what comes together stays in order
            self._run(self.policies.server_rules(guild))
        names = [name for name in STRATEGIES if name != HONEST]
        for number in range(ACCOUNTS):
            name = HONEST if number < HONEST_ACCOUNTS else names[number % len(names)]
            old = account_id(datetime(2020, 1, 1, tzinfo=UTC), number)
            who = Account(old, name, self.chance.choice(COMMUNITIES), self.chance.randint(1, 5))
            for attempt in STRATEGIES[name](who, self.setting.calendar, self.chance):
                self._at(attempt.at, attempt)
            if name in ("extra credits", "own server"):
                home = OWN_SERVER if name == "own server" else who.home
                for amount in (5, 8, -4, -100, 3):
                    self._at(self.setting.calendar.moment(self.chance), (who.user_id, home, amount))

    def _at(self, at: datetime, event: Attempt | Running | tuple[int, int, int]) -> None:
        heappush(self._events, (at, next(self._numbers), event))

    def _run(self, call: Coroutine[Any, Any, Any]) -> Any:
        [outcome] = self.store.together(call)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    # --- a moment ----------------------------------------------------------------------------------------------------

    def _next_moment(self) -> None:
        """Whatever happens in the same millisecond: ends first, then what was granted, then requests, all at once."""
        self._now = self._events[0][0]
        events = []
        while self._events and self._events[0][0] == self._now:
            events.append(heappop(self._events)[2])
        for event in events:
            if isinstance(event, Running):
                self._end(event)
            elif isinstance(event, tuple):
                self._grant(*event)
        attempts = [event for event in events if isinstance(event, Attempt)]
        outcomes = self.store.together(*map(self._ask, attempts))
        for attempt, outcome in zip(attempts, outcomes, strict=True):
            self._judge(attempt, outcome)

    async def _ask(self, attempt: Attempt) -> tuple[Reservation, Job | RequestRejected]:
        """A request as the use case makes it: its terms, then the hold."""
        terms = await self.admission.admit(request(attempt.model), self._requester(attempt), None)
        try:
            return terms, await self.ledger.reserve(terms)
        except RequestRejected as refused:
            return terms, refused

    def _requester(self, attempt: Attempt) -> Requester:
        if not attempt.forged and attempt.reacted_to is None:
            self._ids.append(self._ids[-1] + 1)
        interaction = None if attempt.reacted_to else self._ids[-1]
        if attempt.forged:
            interaction = self.chance.choice(self._ids)
        return replace(
            _SOMEBODY,
            user_id=attempt.user_id or attempt.account.user_id,
            guild_id=attempt.guild_id,
            interaction_id=interaction,
            reacted_to=attempt.reacted_to,
            asked_at=attempt.at,
            roles=attempt.roles,
        )

    def _judge(self, attempt: Attempt, outcome: Any) -> None:
        row = self.rows[attempt.account.strategy]
        row.requests += 1
        if isinstance(outcome, RequestRejected):  # there were no terms at all
            row.refused[outcome.kind] += 1
            if attempt.account.strategy == HONEST:
                self._break(attempt, f"an honest member was refused: {outcome!r}")
            return
        if isinstance(outcome, Exception):
            raise outcome
        terms, result = outcome
        if isinstance(result, Job):
            row.admitted += 1
            self._admitted(attempt, terms, result)
        elif isinstance(result, QuotaExceeded):
            limit = result.allowance.limit
            row.refused[f"{limit.scope}/{limit.window.period}"] += 1
            self._refused(attempt, terms, limit)
        else:
            row.refused[result.kind] += 1
            if attempt.account.strategy == HONEST:
                self._break(attempt, f"an honest member was refused: {result!r}")

    def _admitted(self, attempt: Attempt, terms: Reservation, job: Job) -> None:
        """What was admitted had room in the game's books as well."""
        by = terms.requester
        of_members = [self.books.lacks(limit, terms) for limit in terms.limits if limit.scope in OF_MEMBERS]
        extra = min(terms.cost, max(0, 0, *of_members)) if of_members else 0
        for limit in terms.limits:
            if limit.scope not in OF_MEMBERS and self.books.lacks(limit, terms) > 0:
                self._break(attempt, f"admitted over {limit}")
        key = (by.user_id, by.guild_id or 0)
        if extra > self.books.extra[key]:
            self._break(attempt, f"{extra} extra credits of {self.books.extra[key]} were used")
        self.books.extra[key] -= extra
        self.books.count(terms, OF_MEMBERS, terms.cost - extra)
        self.books.count(terms, (Scope.GUILD, Scope.BOT), terms.cost)
        self.books.count(terms, (Scope.MONEY,), terms.price)
        self.books.count(terms, (Scope.ATTEMPTS,), 1)
        if account_made(by.user_id) + self.setting.access.account_age > by.asked_at:
            self._break(attempt, "a new account was admitted")
        if self.setting.access.servers and by.guild_id not in self.setting.access.servers:
            self._break(attempt, "admitted in a server that is not on the list")
        self._at(self._now + timedelta(seconds=attempt.seconds), Running(attempt, terms, job, extra))

    def _refused(self, attempt: Attempt, terms: Reservation, limit: Limit) -> None:
        """What was refused had no room; an honest member by their own use, or by what all share."""
        left = self.books.extra[terms.requester.user_id, terms.requester.guild_id or 0]
        lacking = self.books.lacks(limit, terms)
        if lacking <= 0 or (limit.scope in OF_MEMBERS and left >= min(terms.cost, lacking)):
            self._break(attempt, f"refused although {limit} has room")
        if attempt.account.strategy != HONEST:
            return
        if limit.scope not in (*OF_MEMBERS, *SHARED):
            self._break(attempt, f"an honest member was refused for {limit}")
        if self.setting.roomy and limit.scope in SHARED:
            self._break(attempt, f"others used up {limit}, of which there was enough")

    def _grant(self, user_id: int, guild_id: int, amount: int) -> None:
        key = (user_id, guild_id)
        left = self._run(self.policies.grant(Change(ADMIN, guild_id, "grant", self._now), user_id, amount, "a game"))
        self.books.extra[key] = max(0, self.books.extra[key] + amount)
        if left != self.books.extra[key]:
            self.broken.append(f"{left} extra credits are left of {self.books.extra[key]}")

    def _end(self, running: Running) -> None:
        attempt, terms, job = running.attempt, running.terms, running.job
        self._run(self._settle(job, attempt.end))
        row = self.rows[attempt.account.strategy]
        if attempt.end in PAID:
            row.money += terms.price
            self._billed[terms.counted_on] += terms.price
        else:
            self.books.count(terms, (Scope.MONEY,), -terms.price)
        if attempt.end is End.PICTURE:
            row.pictures += 1
            row.credits += terms.cost
            self._pictures.add(job.id)
            return
        self.books.extra[terms.requester.user_id, terms.requester.guild_id or 0] += running.extra
        self.books.count(terms, OF_MEMBERS, running.extra - terms.cost)
        self.books.count(terms, (Scope.GUILD, Scope.BOT), -terms.cost)
        marks = {End.UNKNOWN: (Scope.UNKNOWN,), End.UNDELIVERABLE: (Scope.UNKNOWN,), End.POLICY: (Scope.STRIKES,)}
        self.books.count(terms, marks.get(attempt.end, ()), 1)

    async def _settle(self, job: Job, end: End) -> None:
        if end is not End.CANCELLED:
            job = await self.ledger.sending(await self.ledger.acked(job, message_id=1), now=self._now)
        if end in (End.PICTURE, End.UNDELIVERABLE):
            job = await self.ledger.generated(job, Output("https://cdn.example/o.png", None), now=self._now)
        if end is End.PICTURE:
            await self.ledger.delivered(job, message_id=1, now=self._now)
        else:
            await self.ledger.released(job, reason=end, request_id=None, now=self._now)

    def _break(self, attempt: Attempt, what: str) -> None:
        self.broken.append(f"{attempt.at:%d %H:%M:%S} {attempt.account.strategy}: {what}")

    # --- after -------------------------------------------------------------------------------------------------------

    def _check_end(self, raw: sqlite3.Connection) -> None:
        self.broken += [f"a total is not the sum of its entries: {total}" for total in unexplained(raw)]
        charged = {row["job_id"] for row in raw.execute("SELECT job_id FROM entries WHERE kind = 'charge'")}
        if charged != self._pictures:
            self.broken.append(f"charged for {len(charged - self._pictures)} that have no picture, or not charged")
        [[held]] = raw.execute("SELECT SUM(held) FROM entries")
        if held:
            self.broken.append(f"{held} credits are still held")
        self._check_bill()

    def _check_bill(self) -> None:
        """The provider's bill, per day and month of the operator's time zone, is within the budget."""
        budget, months = self.setting.quota.budget, Counter[int]()
        for day, billed in self._billed.items():
            months[day // 100] += billed
            if billed > (budget.daily or 0):
                self.broken.append(f"{billed / DOLLAR} dollars were spent on {day}")
        for month, billed in months.items():
            if billed > (budget.monthly or 0):
                self.broken.append(f"{billed / DOLLAR} dollars were spent in {month}")
