"""No sum that anybody can ask for changes when old jobs are deleted: two ledgers with the same history, of which only
one is ever swept, agree.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import astuple, dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import hypothesis
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from bot.domain.models import Limit, Model, Output, Scope
from bot.domain.privacy import RetentionRules
from bot.domain.quota import day, hour, month
from bot.domain.server_rules import Change
from bot.domain.spending import Settlement
from bot.storage.forgotten import Forgotten
from bot.storage.ledger import Ledger
from bot.storage.personal_data import PersonalData
from bot.storage.policies import Policies
from bot.storage.retention import Retention
from bot.storage.spending import Spending
from bot.storage.usage import UsageRecords
from tests.support.factories import NOON, request, requester, reservation
from tests.support.fault_injection import seed, size
from tests.support.inline_database import InlineDatabase, copied, empty_database

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from bot.storage.journaled_ledger import JournaledLedger

MEMBERS, GUILDS, MODELS = (1, 2, 3), (7, 8), (Model.PKZ_2, Model.PKZ_4)
EVERYTHING = 1000
DAILY = 6
USAGE = timedelta(days=29)


class Settled:
    """The journal has nothing that the ledger has not."""

    async def require_settled(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: how it ends, or that it does not."""

    member: int
    guild: int | None
    model: Model
    cost: int
    ending: str


@dataclass(frozen=True, slots=True)
class Swept:
    days: int
    most: int


@dataclass(frozen=True, slots=True)
class Forgot:
    member: int


@dataclass(frozen=True, slots=True)
class Passed:
    hours: int


@dataclass(frozen=True, slots=True)
class Granted:
    member: int
    amount: int


@dataclass(frozen=True, slots=True)
class Found:
    """The operator settles the oldest of the jobs to reconcile."""

    outcome: Settlement


DELIVERED, OPEN, UNKNOWN = "delivered", "open", "outcome_unknown"
PAID = (DELIVERED, "undeliverable")
ENDINGS = (*PAID, OPEN, UNKNOWN, "provider_refused:CONTENT_POLICY")
ASKED = some.builds(
    Asked,
    some.sampled_from(MEMBERS),
    some.sampled_from((*GUILDS, None)),
    some.sampled_from(MODELS),
    some.sampled_from((1, 1, 2, 0)),
    some.sampled_from((DELIVERED, *ENDINGS, UNKNOWN)),
)
DONE = some.one_of(
    some.builds(Forgot, some.sampled_from(MEMBERS)),
    some.builds(Found, some.sampled_from((Settlement.FREE, *Settlement))),
    some.builds(Granted, some.sampled_from(MEMBERS), some.sampled_from((-2, 1, 5))),
)
PASSED = some.builds(Passed, some.sampled_from((1, 25, 49, 49, 24 * 20)))
SWEPT = some.builds(Swept, some.sampled_from((1, 1, 2, 30)), some.sampled_from((1, 3, 1000, 1000)))
SOME_DAYS = some.tuples(
    some.lists(ASKED, min_size=1, max_size=8), some.lists(DONE, max_size=4), PASSED, some.lists(SWEPT, max_size=2)
)
HISTORY = some.lists(SOME_DAYS, min_size=2, max_size=6).map(
    lambda days: [event for asked, done, passed, swept in days for event in (*asked, *done, passed, *swept)]
)


class Books:
    """One ledger with everything that reads its sums."""

    def __init__(self, raw: sqlite3.Connection, folder: Path) -> None:
        self.database = InlineDatabase(raw)
        self.ledger = Ledger(self.database, spool=folder)
        self.policies = Policies(self.database)
        self.spending = Spending(self.database)
        self.usage = UsageRecords(self.database)
        self.people = PersonalData(
            self.database,
            repository=cast("JournaledLedger", Settled()),
            policies=self.policies,
            forgotten=Forgotten(folder / "forgotten"),
        )
        self.jobs: dict[int, str] = {}

    def outcome(self, work: Coroutine[Any, Any, Any]) -> Any:
        """What a call returns, or the class of what it raises."""
        [outcome] = self.database.together(work)
        return type(outcome) if isinstance(outcome, Exception) else outcome

    async def ask(self, asked: Asked, now: datetime, number: int) -> None:
        ledger, by = self.ledger, replace(requester(asked.member, interaction_id=number, at=now), guild_id=asked.guild)
        limits = [limit for limit in limits_of(asked.member, now) if limit.scope is Scope.MEMBER]
        terms = reservation(by, cost=asked.cost, now=now, what=request(asked.model), limits=limits)
        job = await ledger.reserve(replace(terms, price=10_000 * asked.cost))
        self.jobs[number] = job.id
        if asked.ending == OPEN:
            return
        job = await ledger.sending(await ledger.acked(job, message_id=number), now=now)
        if asked.ending in PAID:
            job = await ledger.generated(job, Output("https://cdn.example/out.png", None), now=now)
        if asked.ending == DELIVERED:
            await ledger.delivered(job, message_id=number, now=now)
        else:
            await ledger.released(job, reason=asked.ending, request_id=None, now=now)

    async def sweep(self, swept: Swept, now: datetime) -> None:
        rules = RetentionRules(jobs=timedelta(days=swept.days), most_jobs=swept.most)
        await Retention(self.database, policies=self.policies, rules=rules).sweep(now=now)

    async def settle_oldest(self, outcome: Settlement, now: datetime) -> int | None:
        """Settle the oldest job to reconcile; returns its number."""
        for unknown in await self.spending.unknown_jobs(count=1):
            await self.spending.settle(unknown.job_id, outcome, actor=5, now=now)
            return next(number for number, job_id in self.jobs.items() if job_id == unknown.job_id)
        return None

    async def sums(self, now: datetime) -> dict[str, Any]:
        """Everything that can be asked for at that time."""
        limits = [limit for member in MEMBERS for limit in limits_of(member, now)]
        windows, today = (day(now), month(now)), now.date()
        found = [await self.usage.usage(guild, first=today - USAGE, last=today) for guild in GUILDS]
        return {
            "allowances": [(one.limit.scope, one.used, one.extra) for one in await self.ledger.allowances(limits)],
            "servers": [await self.spending.by_server(window, count=EVERYTHING) for window in windows],
            "members": [await self.spending.by_member(window, count=EVERYTHING) for window in windows],
            "usage": [sorted(map(astuple, usage.rows)) for usage in found],
        }


def limits_of(member: int, now: datetime) -> list[Limit]:
    limits = []
    for window in (day(now), month(now)):
        limits += [
            Limit(Scope.MEMBER, member, DAILY, window, place=GUILDS[0]),
            Limit(Scope.MEMBER_HERE, member, DAILY, window, place=GUILDS[0]),
            Limit(Scope.GUILD, GUILDS[0], DAILY, window),
            Limit(Scope.BOT, 0, DAILY, window),
            Limit(Scope.MONEY, 0, DAILY, window),
            Limit(Scope.UNKNOWN, member, DAILY, window),
            Limit(Scope.STRIKES, member, DAILY, window),
        ]
    return [*limits, Limit(Scope.ATTEMPTS, member, DAILY, hour(now))]


def happen(books: Books, event: Any, now: datetime, number: int) -> Any:
    """One event in one ledger; returns its outcome."""
    match event:
        case Asked():
            return books.outcome(books.ask(event, now, number))
        case Forgot():
            return books.outcome(books.people.erase(event.member))
        case Granted():
            change = Change(5, GUILDS[0], "grant", now)
            return books.outcome(books.policies.grant(change, event.member, event.amount, "thanks"))
    return None


def live(swept: Books, whole: Books, history: Sequence[Any]) -> None:
    """The same history in both; whenever something was deleted, and at the end, both agree."""
    now = NOON
    for number, event in enumerate(history, 1):
        match event:
            case Passed():
                now += timedelta(hours=event.hours)
            case Swept():
                assert swept.outcome(swept.sweep(event, now)) is None
            case Found():
                settled = swept.outcome(swept.settle_oldest(event.outcome, now))
                if settled is not None:  # what was swept before it was settled can no longer be settled
                    settling = whole.spending.settle(whole.jobs[settled], event.outcome, actor=5, now=now)
                    assert whole.outcome(settling) is True
            case _:
                assert happen(swept, event, now, number) == happen(whole, event, now, number)
        if isinstance(event, Swept | Forgot) or number == len(history):
            sums = swept.outcome(swept.sums(now))
            assert isinstance(sums, dict)
            assert sums == whole.outcome(whole.sums(now)), event


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with empty_database(tmp_path) as found:
        yield found


def copy_of(empty: sqlite3.Connection) -> sqlite3.Connection:
    raw = copied(empty)
    raw.row_factory = sqlite3.Row
    raw.execute("PRAGMA foreign_keys = ON")
    return raw


@pytest.mark.timeout(size(300, 3600))
def test_whatever_is_swept_no_allowance_and_no_sum_changes(
    tmp_path: Path, empty: sqlite3.Connection, request: pytest.FixtureRequest
) -> None:
    @hypothesis.seed(seed(request.node.nodeid))
    @settings(max_examples=size(100, 5_000), deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(HISTORY)
    def check(history: list[Any]) -> None:
        with closing(copy_of(empty)) as one, closing(copy_of(empty)) as other:
            live(Books(one, tmp_path), Books(other, tmp_path), history)

    check()


def test_sums_are_carried_for_two_months_and_lose_the_person_with_their_data(
    tmp_path: Path, empty: sqlite3.Connection
) -> None:
    with closing(copy_of(empty)) as raw:
        books = Books(raw, tmp_path)
        for number in range(1, 5):
            books.outcome(books.ask(Asked(1 + number % 2, 7, Model.PKZ_4, 1, DELIVERED), NOON, number))
        books.outcome(books.ask(Asked(3, 7, Model.PKZ_4, 1, DELIVERED), NOON, 9))  # the last entry stays
        later = NOON + timedelta(days=3)
        books.outcome(books.sweep(Swept(1, 1000), later))

        def carried() -> list[tuple[Any, ...]]:
            return [tuple(row) for row in raw.execute("SELECT user_id, images, credits, paid FROM carried ORDER BY 1")]

        assert carried() == [(1, 2, 2, 20_000), (2, 2, 2, 20_000)]
        for member in (1, 2):
            assert books.outcome(books.people.erase(member)) is None
        assert carried() == [(0, 2, 2, 20_000), (0, 2, 2, 20_000)]
        [gone] = [row for row in books.outcome(books.spending.by_member(day(NOON), count=9)) if row.subject == 0]
        assert (gone.credits, gone.price) == (4, 40_000)
        books.outcome(books.sweep(Swept(1, 1000), NOON + timedelta(days=62)))
        assert len(carried()) == 2
        books.outcome(books.sweep(Swept(1, 1000), NOON + timedelta(days=63)))
        assert carried() == []
