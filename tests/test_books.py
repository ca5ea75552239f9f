"""The books against a plain model: whatever is asked of the ledger, in whatever order, both say the same."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import hypothesis
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as some
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from bot import database
from bot.errors import AlreadyTaken, QuotaSpent, TransitionRefused
from bot.ledger import Ledger
from bot.model import OPEN_STATES, Job, Limit, Output, Picture, Scope, State
from bot.quota import day
from bot.rows import ms
from tests.makers import NOON, asker, request
from tests.programme import seed, size

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Sequence

    from bot.database import Database, Row, Transaction

T = TypeVar("T")

MEMBERS = (1, 2, 3)
GUILD = 7
DAILY = {Scope.MEMBER: 8, Scope.GUILD: 15}
FROM = {
    State.ACKED: {State.RESERVED},
    State.SENDING: {State.ACKED},
    State.GENERATED: {State.SENDING},
    State.SPOOLED: {State.GENERATED, State.SPOOLED},
    State.DELIVERED: {State.SPOOLED},
    State.RELEASED: set(OPEN_STATES),
}
NEXT = dict(zip(OPEN_STATES, tuple(FROM)[:5], strict=True))
KINDS = {State.DELIVERED: ["hold", "charge"], State.RELEASED: ["hold", "release"]}
ENTRIES = "SELECT job_id, kind, user_id, guild_id, held, spent, counted_at FROM entries ORDER BY id"


@dataclass(slots=True)
class Line:
    """What the model knows of one job."""

    job: Job  # as the ledger gave it last
    state: State
    told_at: datetime | None = None

    @property
    def is_open(self) -> bool:
        return self.state in OPEN_STATES


class Books(RuleBasedStateMachine):
    jobs = Bundle("jobs")
    template: ClassVar[Path]  # a database without rows, copied for each example

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=self.template.parent))
        shutil.copy(self.template, self.folder / "bot.sqlite3")
        self.runner = asyncio.Runner()
        self.now = NOON + timedelta(hours=11)
        self.lines: dict[str, Line] = {}
        self.entries: list[tuple[Any, ...]] = []
        self.open()

    def teardown(self) -> None:
        self.close()
        self.runner.close()
        shutil.rmtree(self.folder)

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.get_loop().run_until_complete(work)

    def open(self) -> None:
        self.doors = AsyncExitStack()
        self.books: Database = self.do(self.doors.enter_async_context(database.opened(self.folder / "bot.sqlite3")))
        self.do(self.books._connection.execute_fetchall("PRAGMA synchronous = OFF"))  # no power is lost here
        self.ledger = Ledger(self.books, spool=self.folder)
        self.known = len(self.entries)  # when it was opened

    def close(self) -> None:
        self.do(self.doors.aclose())

    # --- the model ---------------------------------------------------------------------------------------------------

    def used(self, limit: Limit) -> int:
        return sum(
            line.job.cost
            for line in self.lines.values()
            if line.state is not State.RELEASED
            and (limit.scope is Scope.GUILD or line.job.asker.user_id == limit.subject)
            and limit.window.start <= line.job.asker.asked_at < limit.window.end
        )

    def enter(self, job: Job, kind: str, held: int, spent: int) -> None:
        who = job.asker
        self.entries.append((job.id, kind, who.user_id, who.guild_id, held, spent, ms(who.asked_at)))

    def moved(self, line: Line, to: State, outcome: Any) -> None:
        """Take over a step's outcome: a job in its new state, or a refusal and no change."""
        if line.state not in FROM[to]:
            assert isinstance(outcome, TransitionRefused), (line.state, to, outcome)
            return
        assert isinstance(outcome, Job), (line.state, to, outcome)
        assert outcome.state is to
        line.job, line.state = outcome, to
        if to is State.DELIVERED:
            line.told_at = self.now
            self.enter(outcome, "charge", -outcome.cost, outcome.cost)
        elif to is State.RELEASED:
            self.enter(outcome, "release", -outcome.cost, 0)

    def call(self, job: Job, to: State) -> Coroutine[Any, Any, Job]:
        match to:
            case State.ACKED:
                return self.ledger.acked(job, message_id=99)
            case State.SENDING:
                return self.ledger.sending(job, now=self.now)
            case State.GENERATED:
                return self.ledger.generated(job, Output("https://cdn.example/out.png", "req-1"), now=self.now)
            case State.SPOOLED:
                return self.ledger.spooled(job, Picture(self.folder / "x.png", "PNG", 1280, 720, 1000, "ab"))
            case State.DELIVERED:
                return self.ledger.delivered(job, message_id=100, now=self.now)
            case _:
                return self.ledger.released(job, reason="unforeseen", request_id=None, now=self.now)

    # --- what may happen ----------------------------------------------------------------------------------------------

    @rule(
        target=jobs,
        member=some.sampled_from(MEMBERS),
        costs=some.lists(some.integers(0, 4), min_size=1, max_size=4),
        late=some.sampled_from((0, 0, 2, 90)),
        tight=some.none() | some.integers(0, 8),
    )
    def reserve(self, member: int, costs: list[int], late: int, tight: int | None) -> Any:
        at = self.now - timedelta(seconds=late)
        limits = daily(member, at)
        if tight is not None:
            limits.append(Limit(Scope.MEMBER, member, tight, day(at)))
        outcomes = self.do(self.all_reserved([asker(member, at=at) for _ in costs], costs, limits))
        return multiple(*self.reserved(limits, costs, outcomes))

    async def all_reserved(self, askers: Sequence[Any], costs: Sequence[int], limits: Sequence[Limit]) -> list[Any]:
        """Asked for at the same moment: all of them in one commit."""
        take = partial(self.ledger.reserve, request(), limits=limits, now=self.now)
        calls = (take(who, cost=cost) for who, cost in zip(askers, costs, strict=True))
        return await _outcomes(calls)

    def reserved(self, limits: Sequence[Limit], costs: Sequence[int], outcomes: Sequence[Any]) -> list[str]:
        taken = []
        for cost, outcome in zip(costs, outcomes, strict=True):
            short = [limit for limit in limits if self.used(limit) + cost > limit.amount]
            if short:
                assert isinstance(outcome, QuotaSpent), outcome
                assert outcome.allowance.limit in short
                assert outcome.allowance.used == self.used(outcome.allowance.limit)
                continue
            assert isinstance(outcome, Job), outcome
            assert (outcome.state, outcome.cost, outcome.message_id) == (State.RESERVED, cost, None)
            assert outcome.id not in self.lines
            self.lines[outcome.id] = Line(outcome, State.RESERVED)
            self.enter(outcome, "hold", cost, 0)
            taken.append(outcome.id)
        return taken

    @rule(job=jobs)
    def same_interaction_again(self, job: str) -> None:
        first = self.lines[job].job.asker
        [outcome] = self.do(self.all_reserved([first], [1], daily(first.user_id, first.asked_at)))
        assert isinstance(outcome, AlreadyTaken), outcome

    @rule(job=jobs)
    def next_step(self, job: str) -> None:
        line = self.lines[job]
        self.step(job, NEXT.get(line.state, State.DELIVERED))

    @rule(job=jobs, to=some.sampled_from(tuple(FROM)))
    def step(self, job: str, to: State) -> None:
        line = self.lines[job]
        [outcome] = self.do(self.all_called(line.job, [to]))
        self.moved(line, to, outcome)

    @rule(job=jobs)
    def all_the_way(self, job: str) -> None:
        while self.lines[job].is_open:
            self.next_step(job)

    @rule(job=jobs, steps=some.lists(some.sampled_from((*FROM, *FROM, State.DELIVERED)), min_size=2, max_size=4))
    def several_steps_at_once(self, job: str, steps: list[State]) -> None:
        line = self.lines[job]
        for to, outcome in zip(steps, self.do(self.all_called(line.job, steps)), strict=True):
            self.moved(line, to, outcome)

    async def all_called(self, job: Job, steps: Sequence[State]) -> list[Any]:
        return await _outcomes(self.call(job, to) for to in steps)

    @rule(job=jobs)
    def parked(self, job: str) -> None:
        line = self.lines[job]
        [outcome] = self.do(_outcomes([self.ledger.parked(line.job, now=self.now)]))
        if line.state is State.SPOOLED:
            assert outcome.parked_at == self.now
            line.job = outcome
        else:
            assert isinstance(outcome, TransitionRefused), outcome

    @rule(job=jobs)
    def fault_in_the_middle(self, job: str) -> None:
        def steps(transaction: Transaction) -> None:
            transaction.run("UPDATE jobs SET cost = cost + 1 WHERE id = ?", (job,))
            raise RuntimeError("in the middle")

        [outcome] = self.do(_outcomes([self.books.write(steps)]))
        assert isinstance(outcome, RuntimeError)

    @rule(job=jobs)
    def told(self, job: str) -> None:
        line = self.lines[job]
        self.do(self.ledger.told(line.job, now=self.now))
        if line.job.state is State.RELEASED:  # anybody else has nothing to be told, or the picture
            line.told_at = self.now

    @precondition(lambda self: self.entries)
    @rule(minutes=some.sampled_from((1, 20, 59, 600, 1500)))
    def time_passes(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)

    @precondition(lambda self: len(self.entries) >= self.known + 8)  # it takes longer than all else
    @rule()
    def closed_and_opened_again(self) -> None:
        self.close()
        self.open()
        assert not self.books.restored

    # --- what holds after each step -----------------------------------------------------------------------------------

    @invariant()
    def books_and_model_say_the_same(self) -> None:
        self.do(self.compare())

    async def compare(self) -> None:
        limits = [
            limit for at in (self.now, self.now - timedelta(days=1)) for who in MEMBERS for limit in daily(who, at)
        ]
        (jobs, entries), open_jobs, untold, allowances, *parked = await _outcomes(
            [
                self.books.write(_rows),
                self.ledger.open_jobs(),
                self.ledger.untold_jobs(),
                self.ledger.allowances(limits),
                *(self.ledger.parked_jobs(member) for member in MEMBERS),
            ]
        )
        lines = self.lines
        assert [tuple(row) for row in entries] == self.entries
        assert jobs == [_line(line) for line in lines.values()]
        _check_entries(lines, entries)
        # rowid breaks ties, and the model keeps the order of insertion
        waiting = sorted((line for line in lines.values() if line.is_open), key=lambda line: line.job.created_at)
        assert open_jobs == [line.job for line in waiting]
        due = [line.job for line in lines.values() if line.state is State.RELEASED and line.told_at is None]
        assert sorted(job.id for job in untold) == sorted(job.id for job in due)
        assert [job.ended_at for job in untold] == sorted(job.ended_at for job in due if job.ended_at)
        kept = {line.job.id for line in waiting if line.job.parked_at}
        for member, found in zip(MEMBERS, parked, strict=True):
            assert {job.id for job in found} == {job for job in kept if lines[job].job.asker.user_id == member}
        for allowance in allowances:
            assert allowance.used == self.used(allowance.limit) <= allowance.limit.amount


async def _outcomes(calls: Iterable[Coroutine[Any, Any, Any]]) -> list[Any]:
    """Results and exceptions of calls that go into one commit."""
    return list(await asyncio.gather(*calls, return_exceptions=True))


def daily(member: int, at: datetime) -> list[Limit]:
    """The limits that hold for every request, of the day around `at`."""
    subjects = {Scope.MEMBER: member, Scope.GUILD: GUILD}
    return [Limit(scope, subjects[scope], amount, day(at)) for scope, amount in DAILY.items()]


def _rows(transaction: Transaction) -> tuple[list[tuple[Any, ...]], list[Row]]:
    jobs = transaction.run("SELECT id, state, cost, reason, message_id, told_at, token FROM jobs ORDER BY rowid")
    return [tuple(row) for row in jobs], transaction.run(ENTRIES)


def _line(line: Line) -> tuple[Any, ...]:
    job, told_at = line.job, None if line.told_at is None else ms(line.told_at)
    reason = "unforeseen" if line.state is State.RELEASED else None
    token = "interaction-token" if told_at is None else None  # erased when it is of no more use
    return job.id, line.state, job.cost, reason, job.message_id, told_at, token


def _check_entries(lines: dict[str, Line], entries: Sequence[Row]) -> None:
    """One hold for each job and at most one end; what is held is under way, what is spent was delivered."""
    kinds: dict[str, list[str]] = {}
    for row in entries:
        kinds.setdefault(row["job_id"], []).append(row["kind"])
    assert kinds == {job: KINDS.get(line.state, ["hold"]) for job, line in lines.items()}
    assert sum(row["held"] for row in entries) == sum(line.job.cost for line in lines.values() if line.is_open)
    delivered = [line.job.cost for line in lines.values() if line.state is State.DELIVERED]
    assert sum(row["spent"] for row in entries) == sum(delivered)


@pytest.fixture
async def empty(tmp_path: Path) -> Path:
    """A database that every example starts from."""
    async with database.opened(tmp_path / "empty.sqlite3"):
        pass
    return tmp_path / "empty.sqlite3"


@pytest.mark.programme
@pytest.mark.timeout(size(400, 4 * 3600))  # to make a failure small may take hypothesis 300 s
def test_the_books_agree_with_a_plain_model_whatever_happens(empty: Path, request: pytest.FixtureRequest) -> None:
    @hypothesis.seed(seed(request.node.nodeid))
    class Machine(Books):
        template = empty

    form = settings(
        max_examples=size(120, 50_000), stateful_step_count=50, suppress_health_check=list(HealthCheck), database=None
    )
    run_state_machine_as_test(Machine, settings=form)
