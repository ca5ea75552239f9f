"""Compares the ledger with a plain model: after any operations in any order, both must agree."""

from __future__ import annotations

import asyncio
import gc
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

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
from bot.storage import opening
from bot.storage.job_rows import ms
from bot.storage.ledger import Ledger
from tests.support.factories import NOON, requester, reservation
from tests.support.fault_injection import seed, size
from tests.support.inline_database import InlineDatabase, copied
from tests.support.totals import unexplained

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator, Sequence
    from pathlib import Path

    from bot.domain.models import Requester
    from bot.storage.database import Transaction

MEMBERS = (1, 2, 3)
GUILD = 7
DAILY = {Scope.MEMBER: 8, Scope.GUILD: 15}
FROM = {
    State.ACKED: {State.RESERVED},
    State.SENDING: {State.RESERVED, State.ACKED},  # from the first when the job need not wait
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
class ModelJob:
    """The model's record of one job."""

    job: Job  # as the ledger last returned it
    state: State
    notified_at: datetime | None = None

    @property
    def is_open(self) -> bool:
        return self.state in OPEN_STATES

    def row(self) -> tuple[Any, ...]:
        """The row that the table must contain."""
        job, notified_at = self.job, _ms(self.notified_at)
        output, picture = job.output and job.output.url, job.picture and job.picture.path.name
        if not self.is_open:
            output = picture = None  # of no use any more
        reason = "unforeseen" if self.state is State.RELEASED else None
        token = "interaction-token" if notified_at is None else None  # erased when it is no longer needed
        steps = (_ms(job.sent_at), output, _ms(job.generated_at), picture, _ms(job.parked_at), _ms(job.ended_at))
        return job.id, self.state, job.requester.user_id, job.cost, reason, job.message_id, *steps, notified_at, token


class LedgerMachine(RuleBasedStateMachine):
    jobs = Bundle("jobs")
    template: ClassVar[sqlite3.Connection]  # an empty database; every example starts with a copy
    folder: ClassVar[Path]

    def __init__(self) -> None:
        super().__init__()
        self.file = self.folder / "bot.sqlite3"
        self.now = NOON + timedelta(hours=11)
        self.model_jobs: dict[str, ModelJob] = {}
        self.entries: list[tuple[Any, ...]] = []
        self.rows: dict[str, tuple[Any, ...]] = {}
        self.steps = 0
        self.open(self.template)

    def teardown(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        with closing(self.raw):
            _check_entries(self.model_jobs, self.entries)
            self.queries_match_the_model()

    def open(self, origin: sqlite3.Connection) -> None:
        """Open in memory; test_power_loss.py covers what a disk can do to the ledger."""
        self.raw = copied(origin)
        self.raw.row_factory = sqlite3.Row
        self.raw.execute("PRAGMA foreign_keys = ON")
        self.reader = self.raw.cursor()
        self.reader.row_factory = None
        self.database = InlineDatabase(self.raw)
        self.ledger = Ledger(self.database, spool=self.folder)
        self.entries_at_open = len(self.entries)  # when it was opened

    # --- the model ---------------------------------------------------------------------------------------------------

    def used(self, limit: Limit) -> int:
        return sum(
            model_job.job.cost
            for model_job in self.model_jobs.values()
            if model_job.state is not State.RELEASED
            and (limit.scope is Scope.GUILD or model_job.job.requester.user_id == limit.subject)
            and limit.window.start <= model_job.job.requester.asked_at < limit.window.end
        )

    def add_entry(self, job: Job, kind: str, held: int, spent: int) -> None:
        requested_by = job.requester
        self.entries.append(
            (job.id, kind, requested_by.user_id, requested_by.guild_id, held, spent, ms(requested_by.asked_at))
        )

    def apply_step(self, model_job: ModelJob, to: State, outcome: Any) -> None:
        """Apply a step's outcome to the model: a job in its new state, or a refusal and no change."""
        if model_job.state not in FROM[to]:
            assert isinstance(outcome, TransitionRefused), (model_job.state, to, outcome)
            return
        assert isinstance(outcome, Job), (model_job.state, to, outcome)
        assert outcome.state is to
        model_job.job, model_job.state = outcome, to
        if to is State.DELIVERED:
            model_job.notified_at = self.now
            self.add_entry(outcome, "charge", -outcome.cost, outcome.cost)
        elif to is State.RELEASED:
            self.add_entry(outcome, "release", -outcome.cost, 0)
        self.rows[outcome.id] = model_job.row()

    def call(self, job: Job, to: State) -> Coroutine[Any, Any, Job]:
        match to:
            case State.ACKED:
                return self.ledger.acked(job, message_id=99)
            case State.SENDING:
                return self.ledger.sending(job, now=self.now)
            case State.GENERATED:
                return self.ledger.generated(job, Output("https://cdn.example/out.png", "req-1"), now=self.now)
            case State.SPOOLED:
                return self.ledger.spooled(job, Picture(self.folder / "x.png", "PNG", 1280, 720, 1000))
            case State.DELIVERED:
                return self.ledger.delivered(job, message_id=100, now=self.now)
            case _:
                return self.ledger.released(job, reason="unforeseen", request_id=None, now=self.now)

    # --- operations ---------------------------------------------------------------------------------------------------

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
        outcomes = self.database.together(*(self.reserve_one(requester(member, at=at), cost, limits) for cost in costs))
        return multiple(*self.apply_reservations(limits, costs, outcomes))

    def reserve_one(self, requested_by: Requester, cost: int, limits: Sequence[Limit]) -> Coroutine[Any, Any, Job]:
        terms = reservation(requested_by, cost=cost, limits=limits, now=self.now)
        return self.ledger.reserve(replace(terms, price=10_000 * cost))

    def apply_reservations(self, limits: Sequence[Limit], costs: Sequence[int], outcomes: Sequence[Any]) -> list[str]:
        accepted = []
        for cost, outcome in zip(costs, outcomes, strict=True):
            exceeded = [limit for limit in limits if self.used(limit) + cost > limit.amount]
            if exceeded:
                assert isinstance(outcome, QuotaExceeded), outcome
                assert outcome.allowance.limit in exceeded
                assert outcome.allowance.used == self.used(outcome.allowance.limit)
                continue
            assert isinstance(outcome, Job), outcome
            assert (outcome.state, outcome.cost, outcome.message_id) == (State.RESERVED, cost, None)
            assert outcome.id not in self.model_jobs
            self.model_jobs[outcome.id] = model_job = ModelJob(outcome, State.RESERVED)
            self.rows[outcome.id] = model_job.row()
            self.add_entry(outcome, "hold", cost, 0)
            accepted.append(outcome.id)
        return accepted

    @rule(job=jobs)
    def same_interaction_again(self, job: str) -> None:
        first = self.model_jobs[job].job.requester
        [outcome] = self.database.together(self.reserve_one(first, 1, daily(first.user_id, first.asked_at)))
        assert isinstance(outcome, DuplicateRequest), outcome

    @rule(job=jobs)
    def next_step(self, job: str) -> None:
        model_job = self.model_jobs[job]
        self.step(job, NEXT.get(model_job.state, State.DELIVERED))

    @rule(job=jobs, to=some.sampled_from(tuple(FROM)))
    def step(self, job: str, to: State) -> None:
        model_job = self.model_jobs[job]
        [outcome] = self.database.together(self.call(model_job.job, to))
        self.apply_step(model_job, to, outcome)

    @rule(job=jobs)
    def all_the_way(self, job: str) -> None:
        while self.model_jobs[job].is_open:
            self.next_step(job)

    @rule(job=jobs)
    def parked_at_the_end(self, job: str) -> None:
        while self.model_jobs[job].state in OPEN_STATES[:-1]:
            self.next_step(job)
        self.parked(job)

    @rule(job=jobs, steps=some.lists(some.sampled_from((*FROM, *FROM, State.DELIVERED)), min_size=2, max_size=4))
    def several_steps_at_once(self, job: str, steps: list[State]) -> None:
        model_job = self.model_jobs[job]
        outcomes = self.database.together(*(self.call(model_job.job, to) for to in steps))
        for to, outcome in zip(steps, outcomes, strict=True):
            self.apply_step(model_job, to, outcome)

    @rule(job=jobs)
    def parked(self, job: str) -> None:
        model_job = self.model_jobs[job]
        [outcome] = self.database.together(self.ledger.parked(model_job.job, now=self.now))
        if model_job.state is State.SPOOLED:
            assert outcome.parked_at == self.now
            model_job.job = outcome
            self.rows[job] = model_job.row()
        else:
            assert isinstance(outcome, TransitionRefused), outcome

    @rule(job=jobs)
    def fault_in_the_middle(self, job: str) -> None:
        def steps(transaction: Transaction) -> None:
            transaction.run("UPDATE jobs SET cost = cost + 1 WHERE id = ?", (job,))
            raise RuntimeError("in the middle")

        [outcome] = self.database.together(self.database.write(steps))
        assert isinstance(outcome, RuntimeError)

    @rule(job=jobs)
    def notified(self, job: str) -> None:
        model_job = self.model_jobs[job]
        assert self.database.together(self.ledger.notified(model_job.job, now=self.now)) == [None]
        if model_job.job.state is State.RELEASED:  # the other jobs have no failure to report, or have been delivered
            model_job.notified_at = self.now
            self.rows[job] = model_job.row()

    @precondition(lambda self: self.entries)
    @rule(minutes=some.sampled_from((1, 20, 59, 600, 1500)))
    def time_passes(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)

    @precondition(lambda self: len(self.entries) >= self.entries_at_open + 12)  # this rule is the slowest
    @rule()
    def closed_and_opened_again(self) -> None:
        self.folder.mkdir(exist_ok=True)
        with closing(self.raw), closing(copied(self.raw, self.file)):
            pass
        asyncio.run(_open_and_close(self.file))
        with closing(sqlite3.connect(self.file)) as written:
            self.open(written)

    # --- checks after each step -------------------------------------------------------------------------------------

    @invariant()
    def tables_match_the_model(self) -> None:
        assert self.reader.execute(JOBS).fetchall() == list(self.rows.values())
        assert self.reader.execute(ENTRIES).fetchall() == self.entries
        [allowances] = self.database.together(self.ledger.allowances(_limits(self.now.date())))
        for allowance in allowances:
            assert allowance.used == self.used(allowance.limit) <= allowance.limit.amount
        self.steps += 1
        if self.steps % 8 == 0:  # they read the rows that were just compared
            self.queries_match_the_model()

    def queries_match_the_model(self) -> None:
        open_jobs, unnotified, allowances, *parked = self.database.together(
            self.ledger.open_jobs(),
            self.ledger.unnotified_jobs(),
            self.ledger.allowances(_limits(self.now.date() - timedelta(days=1))),
            *(self.ledger.parked_jobs(member) for member in MEMBERS),
        )
        model_jobs = self.model_jobs.values()
        # rowid breaks ties, and the model keeps the order of insertion
        waiting = sorted(
            (model_job.job for model_job in model_jobs if model_job.is_open), key=lambda job: job.created_at
        )
        assert open_jobs == waiting
        expected_unnotified = [
            model_job.job
            for model_job in model_jobs
            if model_job.state is State.RELEASED and model_job.notified_at is None
        ]
        assert sorted(job.id for job in unnotified) == sorted(job.id for job in expected_unnotified)
        assert [job.ended_at for job in unnotified] == sorted(
            job.ended_at for job in expected_unnotified if job.ended_at
        )
        for member, found in zip(MEMBERS, parked, strict=True):
            expected_parked = {job.id for job in waiting if job.parked_at and job.requester.user_id == member}
            assert {job.id for job in found} == expected_parked
        for allowance in allowances:
            assert allowance.used == self.used(allowance.limit) <= allowance.limit.amount
        assert unexplained(self.raw) == []


async def _open_and_close(file: Path) -> None:
    """Open it as the bot does: with the thread, the lock, the verification, and the marker."""
    async with opening.opened(file) as opened:
        assert not opened.restored


def daily(member: int, at: datetime) -> list[Limit]:
    """The limits for a request by `member` on the day of `at`."""
    return [limit for limit in _limits(at.date()) if limit.scope is Scope.GUILD or limit.subject == member]


@cache
def _limits(date: date) -> tuple[Limit, ...]:
    """The limits of all members and of the server."""
    window = day(datetime.combine(date, time(), UTC))
    subjects = {Scope.MEMBER: MEMBERS, Scope.GUILD: (GUILD,)}
    return tuple(
        Limit(scope, subject, DAILY[scope], window, place=GUILD) for scope in DAILY for subject in subjects[scope]
    )


def _ms(at: datetime | None) -> int | None:
    return None if at is None else ms(at)


def _check_entries(model_jobs: dict[str, ModelJob], entries: Sequence[tuple[Any, ...]]) -> None:
    """Check one hold and at most one final entry per job; open jobs are held, and delivered jobs are spent."""
    kinds: dict[str, list[str]] = {job: [] for job in model_jobs}
    held = spent = 0
    for job, kind, _, _, entry_held, entry_spent, _ in entries:
        kinds[job].append(kind)
        held += entry_held
        spent += entry_spent
    assert kinds == {job: KINDS.get(model_job.state, ["hold"]) for job, model_job in model_jobs.items()}
    assert held == sum(model_job.job.cost for model_job in model_jobs.values() if model_job.is_open)
    assert spent == sum(model_job.job.cost for model_job in model_jobs.values() if model_job.state is State.DELIVERED)


@pytest.fixture
def rare_garbage_collection() -> Iterator[None]:
    """Collect garbage less often, because it used a fifth of the time."""
    before = gc.get_threshold()
    gc.set_threshold(50_000, *before[1:])
    yield
    gc.set_threshold(*before)


@pytest.mark.faults
@pytest.mark.usefixtures("rare_garbage_collection")
@pytest.mark.timeout(size(400, 4 * 3600))  # hypothesis may need 300 s to shrink a failure
@pytest.mark.parametrize("block", range(size(2, 10)))  # to use more than one core
def test_the_ledger_agrees_with_a_plain_model_whatever_happens(
    tmp_path: Path, request: pytest.FixtureRequest, block: int
) -> None:
    empty = tmp_path / "empty.sqlite3"
    asyncio.run(_open_and_close(empty))
    with closing(sqlite3.connect(empty)) as without_rows:

        @hypothesis.seed(seed(request.node.nodeid) + block)
        class Machine(LedgerMachine):
            template = without_rows
            folder = tmp_path / "ledger"

        machine_settings = settings(
            max_examples=size(250, 5_000),
            stateful_step_count=50,
            suppress_health_check=list(HealthCheck),
            database=None,
        )
        run_state_machine_as_test(Machine, settings=machine_settings)
