"""The books against a plain model: whatever is asked of the ledger, in whatever order, both say the same."""

from __future__ import annotations

import asyncio
import gc
import shutil
import sqlite3
import types
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
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

from bot.domain.errors import DuplicateRequest, QuotaExceeded, TransitionRefused
from bot.domain.models import OPEN_STATES, Job, Limit, Output, Picture, Scope, State
from bot.domain.quota import day
from bot.storage import database
from bot.storage.database import Database, Transaction
from bot.storage.job_rows import ms
from bot.storage.ledger import Ledger
from tests.support.factories import NOON, requester, reservation
from tests.support.fault_injection import seed, size

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Iterator, Sequence
    from pathlib import Path

    from bot.domain.models import Requester

T = TypeVar("T")

MEMBERS = (1, 2, 3)
GUILD = 7
DAILY = {Scope.MEMBER: 8, Scope.GUILD: 15}
FROM = {
    State.ACKED: {State.RESERVED},
    State.SENDING: {State.ACKED},
    State.GENERATED: {State.SENDING},
    State.SPOOLED: {State.GENERATED, State.SPOOLED},
    State.DELIVERED: {State.GENERATED, State.SPOOLED},  # without the spool when the disk is full
    State.RELEASED: set(OPEN_STATES),
}
NEXT = dict(zip(OPEN_STATES, tuple(FROM)[:5], strict=True))
KINDS = {State.DELIVERED: ["hold", "charge"], State.RELEASED: ["hold", "release"]}
JOBS = """
    SELECT id, state, user_id, cost, reason, message_id, sent_at, output_url, generated_at, picture_file, parked_at,
        ended_at, notified_at, token
    FROM jobs ORDER BY rowid
"""
ENTRIES = "SELECT job_id, kind, user_id, guild_id, held, spent, counted_at FROM entries ORDER BY id"


@dataclass(slots=True)
class Line:
    """What the model knows of one job."""

    job: Job  # as the ledger gave it last
    state: State
    notified_at: datetime | None = None

    @property
    def is_open(self) -> bool:
        return self.state in OPEN_STATES

    def row(self) -> tuple[Any, ...]:
        """What the table must say."""
        job, notified_at = self.job, _ms(self.notified_at)
        output, picture = job.output and job.output.url, job.picture and job.picture.path.name
        reason = "unforeseen" if self.state is State.RELEASED else None
        token = "interaction-token" if notified_at is None else None  # erased when it is of no more use
        steps = (_ms(job.sent_at), output, _ms(job.generated_at), picture, _ms(job.parked_at), _ms(job.ended_at))
        return job.id, self.state, job.requester.user_id, job.cost, reason, job.message_id, *steps, notified_at, token


class Inline(Database):
    """The database without its thread and the event loop: a call yields what it wants done, and `together` does it.

    Whatever decides is the real one's: the statements, the savepoints, BEGIN and COMMIT.
    """

    def __init__(self, raw: sqlite3.Connection) -> None:
        self._transaction = Transaction(raw)

    async def _enqueue(self, work: Callable[[], T]) -> T:
        return await _asked(work)

    def together(self, *calls: Coroutine[Any, Any, Any]) -> list[Any]:
        """Results and exceptions of calls at the same moment: what they ask for goes into one commit."""
        outcomes: list[Any] = [None] * len(calls)
        answers: dict[int, Any] = dict.fromkeys(range(len(calls)))
        while answers:
            works = {}
            for number, answer in answers.items():
                try:
                    works[number] = _told(calls[number], answer)
                except StopIteration as end:
                    outcomes[number] = end.value
                except Exception as error:  # noqa: BLE001 - an outcome like any other
                    outcomes[number] = error
            answers = dict(zip(works, self._commit(list(works.values())), strict=True)) if works else {}
        return outcomes


@types.coroutine
def _asked(work: Callable[[], T]) -> Generator[Callable[[], T], T, T]:
    return (yield work)


def _told(call: Coroutine[Any, Any, Any], answer: Any) -> Any:
    """Go on with a call; returns what it asks for next, raises its end."""
    return call.throw(answer) if isinstance(answer, Exception) else call.send(answer)


class JobRepository(RuleBasedStateMachine):
    jobs = Bundle("jobs")
    template: ClassVar[sqlite3.Connection]  # without rows; every example begins with a copy
    folder: ClassVar[Path]

    def __init__(self) -> None:
        super().__init__()
        self.file = self.folder / "bot.sqlite3"
        self.now = NOON + timedelta(hours=11)
        self.lines: dict[str, Line] = {}
        self.entries: list[tuple[Any, ...]] = []
        self.rows: dict[str, tuple[Any, ...]] = {}
        self.steps = 0
        self.open(self.template)

    def teardown(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        with closing(self.raw):
            _check_entries(self.lines, self.entries)
            self.readers_and_model_say_the_same()

    def open(self, origin: sqlite3.Connection) -> None:
        """In memory: what a disk may do to the books is another test's business."""
        self.raw = _copied(origin, ":memory:")
        self.raw.row_factory = sqlite3.Row
        self.raw.execute("PRAGMA foreign_keys = ON")
        self.reader = self.raw.cursor()
        self.reader.row_factory = None
        self.books = Inline(self.raw)
        self.ledger = Ledger(self.books, spool=self.folder)
        self.known = len(self.entries)  # when it was opened

    # --- the model ---------------------------------------------------------------------------------------------------

    def used(self, limit: Limit) -> int:
        return sum(
            line.job.cost
            for line in self.lines.values()
            if line.state is not State.RELEASED
            and (limit.scope is Scope.GUILD or line.job.requester.user_id == limit.subject)
            and limit.window.start <= line.job.requester.asked_at < limit.window.end
        )

    def enter(self, job: Job, kind: str, held: int, spent: int) -> None:
        who = job.requester
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
            line.notified_at = self.now
            self.enter(outcome, "charge", -outcome.cost, outcome.cost)
        elif to is State.RELEASED:
            self.enter(outcome, "release", -outcome.cost, 0)
        self.rows[outcome.id] = line.row()

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
        outcomes = self.books.together(*(self.take(requester(member, at=at), cost, limits) for cost in costs))
        return multiple(*self.reserved(limits, costs, outcomes))

    def take(self, who: Requester, cost: int, limits: Sequence[Limit]) -> Coroutine[Any, Any, Job]:
        return self.ledger.reserve(reservation(who, cost=cost, limits=limits, now=self.now))

    def reserved(self, limits: Sequence[Limit], costs: Sequence[int], outcomes: Sequence[Any]) -> list[str]:
        taken = []
        for cost, outcome in zip(costs, outcomes, strict=True):
            short = [limit for limit in limits if self.used(limit) + cost > limit.amount]
            if short:
                assert isinstance(outcome, QuotaExceeded), outcome
                assert outcome.allowance.limit in short
                assert outcome.allowance.used == self.used(outcome.allowance.limit)
                continue
            assert isinstance(outcome, Job), outcome
            assert (outcome.state, outcome.cost, outcome.message_id) == (State.RESERVED, cost, None)
            assert outcome.id not in self.lines
            self.lines[outcome.id] = line = Line(outcome, State.RESERVED)
            self.rows[outcome.id] = line.row()
            self.enter(outcome, "hold", cost, 0)
            taken.append(outcome.id)
        return taken

    @rule(job=jobs)
    def same_interaction_again(self, job: str) -> None:
        first = self.lines[job].job.requester
        [outcome] = self.books.together(self.take(first, 1, daily(first.user_id, first.asked_at)))
        assert isinstance(outcome, DuplicateRequest), outcome

    @rule(job=jobs)
    def next_step(self, job: str) -> None:
        line = self.lines[job]
        self.step(job, NEXT.get(line.state, State.DELIVERED))

    @rule(job=jobs, to=some.sampled_from(tuple(FROM)))
    def step(self, job: str, to: State) -> None:
        line = self.lines[job]
        [outcome] = self.books.together(self.call(line.job, to))
        self.moved(line, to, outcome)

    @rule(job=jobs)
    def all_the_way(self, job: str) -> None:
        while self.lines[job].is_open:
            self.next_step(job)

    @rule(job=jobs)
    def parked_at_the_end(self, job: str) -> None:
        while self.lines[job].state in OPEN_STATES[:-1]:
            self.next_step(job)
        self.parked(job)

    @rule(job=jobs, steps=some.lists(some.sampled_from((*FROM, *FROM, State.DELIVERED)), min_size=2, max_size=4))
    def several_steps_at_once(self, job: str, steps: list[State]) -> None:
        line = self.lines[job]
        outcomes = self.books.together(*(self.call(line.job, to) for to in steps))
        for to, outcome in zip(steps, outcomes, strict=True):
            self.moved(line, to, outcome)

    @rule(job=jobs)
    def parked(self, job: str) -> None:
        line = self.lines[job]
        [outcome] = self.books.together(self.ledger.parked(line.job, now=self.now))
        if line.state is State.SPOOLED:
            assert outcome.parked_at == self.now
            line.job = outcome
            self.rows[job] = line.row()
        else:
            assert isinstance(outcome, TransitionRefused), outcome

    @rule(job=jobs)
    def fault_in_the_middle(self, job: str) -> None:
        def steps(transaction: Transaction) -> None:
            transaction.run("UPDATE jobs SET cost = cost + 1 WHERE id = ?", (job,))
            raise RuntimeError("in the middle")

        [outcome] = self.books.together(self.books.write(steps))
        assert isinstance(outcome, RuntimeError)

    @rule(job=jobs)
    def told(self, job: str) -> None:
        line = self.lines[job]
        assert self.books.together(self.ledger.notified(line.job, now=self.now)) == [None]
        if line.job.state is State.RELEASED:  # anybody else has nothing to be told, or the picture
            line.notified_at = self.now
            self.rows[job] = line.row()

    @precondition(lambda self: self.entries)
    @rule(minutes=some.sampled_from((1, 20, 59, 600, 1500)))
    def time_passes(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)

    @precondition(lambda self: len(self.entries) >= self.known + 12)  # it takes longer than all else
    @rule()
    def closed_and_opened_again(self) -> None:
        self.folder.mkdir(exist_ok=True)
        with closing(self.raw), closing(_copied(self.raw, self.file)):
            pass
        asyncio.run(_opened_and_closed(self.file))
        with closing(sqlite3.connect(self.file)) as written:
            self.open(written)

    # --- what holds after each step -----------------------------------------------------------------------------------

    @invariant()
    def books_and_model_say_the_same(self) -> None:
        assert self.reader.execute(JOBS).fetchall() == list(self.rows.values())
        assert self.reader.execute(ENTRIES).fetchall() == self.entries
        [allowances] = self.books.together(self.ledger.allowances(_limits(self.now.date())))
        for allowance in allowances:
            assert allowance.used == self.used(allowance.limit) <= allowance.limit.amount
        self.steps += 1
        if self.steps % 8 == 0:  # they only read what has just been compared
            self.readers_and_model_say_the_same()

    def readers_and_model_say_the_same(self) -> None:
        open_jobs, untold, allowances, *parked = self.books.together(
            self.ledger.open_jobs(),
            self.ledger.unnotified_jobs(),
            self.ledger.allowances(_limits(self.now.date() - timedelta(days=1))),
            *(self.ledger.parked_jobs(member) for member in MEMBERS),
        )
        lines = self.lines.values()
        # rowid breaks ties, and the model keeps the order of insertion
        waiting = sorted((line.job for line in lines if line.is_open), key=lambda job: job.created_at)
        assert open_jobs == waiting
        due = [line.job for line in lines if line.state is State.RELEASED and line.notified_at is None]
        assert sorted(job.id for job in untold) == sorted(job.id for job in due)
        assert [job.ended_at for job in untold] == sorted(job.ended_at for job in due if job.ended_at)
        for member, found in zip(MEMBERS, parked, strict=True):
            kept = {job.id for job in waiting if job.parked_at and job.requester.user_id == member}
            assert {job.id for job in found} == kept
        for allowance in allowances:
            assert allowance.used == self.used(allowance.limit) <= allowance.limit.amount


def _copied(origin: sqlite3.Connection, to: Path | str) -> sqlite3.Connection:
    copy = sqlite3.connect(to, isolation_level=None)
    copy.execute("PRAGMA synchronous = OFF")  # no power is lost here
    origin.backup(copy)
    return copy


async def _opened_and_closed(file: Path) -> None:
    """As the program does it: with the thread, the lock, the verification and the marker."""
    async with database.opened(file) as books:
        assert not books.restored


def daily(member: int, at: datetime) -> list[Limit]:
    """The limits that hold for every request, of the day around `at`."""
    return [limit for limit in _limits(at.date()) if limit.scope is Scope.GUILD or limit.subject == member]


@cache
def _limits(date: date) -> tuple[Limit, ...]:
    """Of everybody, and of the guild."""
    window = day(datetime.combine(date, time(), UTC))
    subjects = {Scope.MEMBER: MEMBERS, Scope.GUILD: (GUILD,)}
    return tuple(Limit(scope, subject, DAILY[scope], window) for scope in DAILY for subject in subjects[scope])


def _ms(at: datetime | None) -> int | None:
    return None if at is None else ms(at)


def _check_entries(lines: dict[str, Line], entries: Sequence[tuple[Any, ...]]) -> None:
    """One hold for each job and at most one end; what is held is under way, what is spent was delivered."""
    kinds: dict[str, list[str]] = {job: [] for job in lines}
    held = spent = 0
    for job, kind, _, _, entry_held, entry_spent, _ in entries:
        kinds[job].append(kind)
        held += entry_held
        spent += entry_spent
    assert kinds == {job: KINDS.get(line.state, ["hold"]) for job, line in lines.items()}
    assert held == sum(line.job.cost for line in lines.values() if line.is_open)
    assert spent == sum(line.job.cost for line in lines.values() if line.state is State.DELIVERED)


@pytest.fixture
def rarely_collected() -> Iterator[None]:
    """A fifth of the time went into looking for garbage."""
    before = gc.get_threshold()
    gc.set_threshold(50_000, *before[1:])
    yield
    gc.set_threshold(*before)


@pytest.mark.faults
@pytest.mark.usefixtures("rarely_collected")
@pytest.mark.timeout(size(400, 4 * 3600))  # to make a failure small may take hypothesis 300 s
@pytest.mark.parametrize("block", range(size(2, 10)))  # for more than one core
def test_the_books_agree_with_a_plain_model_whatever_happens(
    tmp_path: Path, request: pytest.FixtureRequest, block: int
) -> None:
    empty = tmp_path / "empty.sqlite3"
    asyncio.run(_opened_and_closed(empty))
    with closing(sqlite3.connect(empty)) as without_rows:

        @hypothesis.seed(seed(request.node.nodeid) + block)
        class Machine(JobRepository):
            template = without_rows
            folder = tmp_path / "books"

        form = settings(
            max_examples=size(250, 5_000),
            stateful_step_count=50,
            suppress_health_check=list(HealthCheck),
            database=None,
        )
        run_state_machine_as_test(Machine, settings=form)
