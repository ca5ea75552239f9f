"""Power loss: everything that was confirmed is completely in the ledger, and everything else is completely absent."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
from bisect import bisect_right
from collections import Counter, defaultdict
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from bot.domain.errors import DuplicateRequest, QuotaExceeded, TransitionRefused
from bot.domain.models import OPEN_STATES, Job, Output, Picture, State
from bot.domain.quota import day
from bot.storage import opening
from bot.storage.job_rows import ms
from bot.storage.ledger import Ledger
from tests.support.factories import NOON, limit, request, requester, reservation
from tests.support.fault_injection import seed, size

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from bot.storage.database import Database, Transaction

    Effect: TypeAlias = tuple[
        Awaitable[Any], Callable[[Any], None]
    ]  # a call, and how to apply its outcome to the model

JOBS = "SELECT id, state, user_id, cost, message_id, reason, asked_at, notified_at FROM jobs ORDER BY rowid"
ENTRIES = "SELECT job_id, kind, user_id, held, spent, counted_at FROM entries ORDER BY id"
KINDS = {State.DELIVERED: ["hold", "charge"], State.RELEASED: ["hold", "release"]}

DAILY = 30  # credits; more than any member uses here
SECTOR = 512  # bytes that a disk writes together
FRAME = 24 + 4096  # bytes of one page with its header in the log
MS_A_DAY = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class Content:
    """The rows of both tables, in order."""

    jobs: tuple[tuple[Any, ...], ...] = ()
    entries: tuple[tuple[Any, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Moment:
    """With at least `wal` bytes of the log, the ledger must be `content`."""

    wal: int
    content: Content


@dataclass(frozen=True, slots=True)
class Files:
    """The database and its log, copied while open, and the moments that the log contains."""

    main: bytes
    wal: bytes
    moments: tuple[Moment, ...]

    def at(self, cut: int) -> Moment:
        return self.moments[bisect_right(self.moments, cut, key=lambda moment: moment.wal) - 1]

    def after(self, cut: int) -> int:
        """The end of the transaction that contains the cut."""
        index = bisect_right(self.moments, cut, key=lambda moment: moment.wal)
        return self.moments[index].wal if index < len(self.moments) else len(self.wal)


@dataclass(slots=True)
class PlannedJob:
    """A job with its remaining steps, and its expected row so far."""

    member: int
    cost: int
    steps: list[State | str]
    job: Job | None = None
    row: dict[str, Any] = field(default_factory=dict)


class Workload:
    """Takes jobs through their steps, several in one commit, and records the expected ledger after each."""

    def __init__(self, opened: Database, folder: Path, chance: random.Random) -> None:
        self._database = opened
        self._ledger = Ledger(opened, spool=folder)
        self._wal = folder / "bot.sqlite3-wal"
        self._picture = Picture(folder / "x.png", "PNG", 1280, 720, 1000)
        self._chance = chance
        self._now = NOON
        self._rows: list[dict[str, Any]] = []
        self._entries: list[tuple[Any, ...]] = []
        self._moments = [Moment(0, Content())]

    async def run(self) -> tuple[Moment, ...]:
        self._record_moment()
        waiting = self._plans()
        while waiting:
            group = self._chance.sample(waiting, min(len(waiting), self._chance.choice((1, 1, 2, 2, 3, 6))))
            effects = [self._step(plan) for plan in group]
            if self._chance.random() < 0.4:
                effects.insert(self._chance.randint(0, len(effects)), self._refusal())
            outcomes = await asyncio.gather(*(call for call, _ in effects), return_exceptions=True)
            for (_, apply), outcome in zip(effects, outcomes, strict=True):
                apply(outcome)
            self._record_moment()
            self._now += timedelta(minutes=self._chance.randint(0, 25))
            waiting = [plan for plan in waiting if plan.steps]
        return tuple(self._moments)

    def _record_moment(self) -> None:
        content = Content(tuple(tuple(row.values()) for row in self._rows), tuple(self._entries))
        self._moments.append(Moment(self._wal.stat().st_size, content))

    def _plans(self) -> list[PlannedJob]:
        path_to_delivery: tuple[State | str, ...] = tuple(State)[:6]
        courses = [path_to_delivery, path_to_delivery, path_to_delivery]
        for length in range(1, len(OPEN_STATES) + 1):
            courses += [
                path_to_delivery[:length],
                (*path_to_delivery[:length], State.RELEASED),
                (*path_to_delivery[:length], State.RELEASED, "told"),
            ]
        courses *= 2
        return [PlannedJob(1 + n % 4, self._chance.randint(0, 3), list(course)) for n, course in enumerate(courses)]

    def _step(self, plan: PlannedJob) -> Effect:
        step = plan.steps.pop(0)
        if step is State.RESERVED:
            call = self._reserve(plan.member, plan.cost)
            return call, partial(self._reserved, plan, ms(self._now))
        assert plan.job is not None
        return self._move(plan.job, step), partial(self._moved, plan, step, ms(self._now))

    def _reserve(
        self, member: int, cost: int, *, amount: int = DAILY, interaction: int | None = None
    ) -> Awaitable[Job]:
        limits = [limit(amount, user_id=member, window=day(self._now))]
        requested_by = requester(member, interaction_id=interaction, at=self._now)
        return self._ledger.reserve(reservation(requested_by, cost=cost, limits=limits, now=self._now))

    def _move(self, job: Job, step: State | str) -> Awaitable[Any]:
        ledger, now = self._ledger, self._now
        calls: dict[State | str, Callable[[], Awaitable[Any]]] = {
            State.ACKED: lambda: ledger.acked(job, message_id=99),
            State.SENDING: lambda: ledger.sending(job, now=now),
            State.GENERATED: lambda: ledger.generated(job, Output("https://cdn.example/o.png", "req-1"), now=now),
            State.SPOOLED: lambda: ledger.spooled(job, self._picture),
            State.DELIVERED: lambda: ledger.delivered(job, message_id=100, now=now),
            State.RELEASED: lambda: ledger.released(job, reason="unforeseen", request_id=None, now=now),
            "told": lambda: ledger.notified(job, now=now),
        }
        return calls[step]()

    def _reserved(self, plan: PlannedJob, at: int, outcome: Any) -> None:
        assert isinstance(outcome, Job), outcome
        plan.job = outcome
        plan.row = {"id": outcome.id, "state": "reserved", "user_id": plan.member, "cost": plan.cost}
        plan.row |= {"message_id": None, "reason": None, "asked_at": at, "notified_at": None}
        self._rows.append(plan.row)
        self._add_entry(plan, "hold", plan.cost, 0)

    def _moved(self, plan: PlannedJob, step: State | str, at: int, outcome: Any) -> None:
        assert not isinstance(outcome, BaseException), outcome
        if step == "told":
            plan.row["notified_at"] = at
            return
        plan.job, plan.row["state"] = outcome, str(step)
        match step:
            case State.ACKED:
                plan.row["message_id"] = 99
            case State.DELIVERED:
                plan.row |= {"message_id": 100, "notified_at": at}
                self._add_entry(plan, "charge", -plan.cost, plan.cost)
            case State.RELEASED:
                plan.row["reason"] = "unforeseen"
                self._add_entry(plan, "release", -plan.cost, 0)

    def _add_entry(self, plan: PlannedJob, kind: str, held: int, spent: int) -> None:
        self._entries.append((plan.row["id"], kind, plan.member, held, spent, plan.row["asked_at"]))

    def _refusal(self) -> Effect:
        """A call in the same commit that is refused and leaves no trace."""
        ended = [row for row in self._rows if row["state"] in KINDS]
        if not ended:
            return self._reserve(50, 1, amount=0), partial(_refused, QuotaExceeded)
        row = self._chance.choice(ended)
        job = Job(row["id"], State.SPOOLED, request(), requester(), cost=row["cost"], created_at=NOON)
        step = self._chance.choice((*KINDS, State.SPOOLED, "twice", "half"))
        if step == "half":
            return self._database.write(_partial_write), partial(_refused, RuntimeError)
        if step == "twice":
            return self._twice(), partial(_refused, DuplicateRequest)
        return self._move(job, step), partial(_refused, TransitionRefused)

    async def _twice(self) -> Job:
        [job, *_] = await self._ledger.open_jobs()
        return await self._reserve(50, 1, interaction=job.requester.interaction_id)


def _partial_write(transaction: Transaction) -> None:
    transaction.run("UPDATE jobs SET cost = cost + 1")
    raise RuntimeError("in the middle")


def _refused(kind: type[Exception], outcome: Any) -> None:
    assert isinstance(outcome, kind), outcome


async def record_workload(folder: Path, chance: random.Random) -> Files:
    async with opening.opened(folder / "bot.sqlite3") as opened:
        # A cut simulates a power loss only if each commit is flushed before it is confirmed.
        assert [tuple(row) for row in await opened.run("PRAGMA synchronous")] == [(2,)]
        await opened.run("PRAGMA wal_autocheckpoint = 0")  # the log must contain the whole workload
        moments = await Workload(opened, folder, chance).run()
        wal = (folder / "bot.sqlite3-wal").read_bytes()
        assert len(wal) == moments[-1].wal
        return Files((folder / "bot.sqlite3").read_bytes(), wal, moments)


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    return random.Random(seed(request.node.nodeid))  # noqa: S311 - test data, not a secret


@pytest.fixture
async def files(tmp_path: Path, chance: random.Random) -> Files:
    folder = tmp_path / "life"
    folder.mkdir()
    return await record_workload(folder, chance)


@pytest.fixture
def damaged(tmp_path: Path, files: Files) -> Path:
    """The database in its own folder; the test puts a log next to it."""
    (tmp_path / "ruin").mkdir()
    path = tmp_path / "ruin" / "bot.sqlite3"
    path.write_bytes(files.main)
    return path


def content(path: Path, *, check: bool = False) -> Content | None:
    """The rows that a read-only connection finds; None if there are no tables yet."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        if check:
            assert connection.execute("PRAGMA quick_check").fetchall() == [("ok",)]
        if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'jobs'").fetchall():
            return None
        return Content(tuple(connection.execute(JOBS)), tuple(connection.execute(ENTRIES)))


def cuts(files: Files, number: int, chance: random.Random) -> list[int]:
    """Positions spread evenly and around each commit's end, in descending order, so each only shortens the log."""
    stride = max(1, len(files.wal) // number)
    spread = range(chance.randrange(stride), len(files.wal), stride)
    edges = {moment.wal + by for moment in files.moments for by in (-1, 0, 1)}
    return sorted({*spread, *edges} & {*range(len(files.wal) + 1)}, reverse=True)


def garbage_after(files: Files, cut: int, chance: random.Random) -> bytes:
    """Possible bytes after the cut: random ones, or the rest of the commit without the sector that was lost."""
    noise = bytearray(chance.randbytes(SECTOR if chance.random() < 0.5 else chance.randint(1, 3 * FRAME)))
    if cut < len(files.wal) and noise[0] == files.wal[cut]:
        noise[0] ^= 0xFF  # otherwise the cut would be one byte later
    return bytes(noise) + (files.wal[cut + SECTOR : files.after(cut)] if len(noise) == SECTOR else b"")


def check_accounts(rows_found: Content) -> None:
    """Check the rules of the ledger from the rows alone."""
    entries = defaultdict(list)
    for job_id, kind, *_ in rows_found.entries:
        entries[job_id].append(kind)
    assert dict(entries) == {job_id: KINDS.get(State(state), ["hold"]) for job_id, state, *_ in rows_found.jobs}
    used: Counter[tuple[int, int]] = Counter()
    expected_use: Counter[tuple[int, int]] = Counter()
    for _, _, member, held, spent, counted_at in rows_found.entries:
        used[member, counted_at // MS_A_DAY] += held + spent
    for _, state, member, cost, _, _, asked_at, _ in rows_found.jobs:
        expected_use[member, asked_at // MS_A_DAY] += 0 if state == "released" else cost
    assert used == expected_use


@pytest.mark.faults
@pytest.mark.timeout(size(120, 3600))
def test_a_log_cut_at_any_byte_contains_exactly_the_confirmed_transactions(
    files: Files, damaged: Path, chance: random.Random
) -> None:
    log = damaged.with_name("bot.sqlite3-wal")
    log.write_bytes(files.wal)
    seen: set[int] = set()
    for number, cut in enumerate(cuts(files, size(2_000, 20_000), chance)):
        moment = files.at(cut)
        for tail in (garbage_after(files, cut, chance), b""):
            _write_tail(log, cut, tail)
            rows_found = content(damaged, check=number % 100 == 0)
            assert rows_found == moment.content or (rows_found is None and cut < files.moments[1].wal), (cut, len(tail))
        if moment.wal not in seen and rows_found is not None:
            check_accounts(rows_found)
            seen.add(moment.wal)
    assert len(seen) > len(OPEN_STATES) * 10
    assert {row[1] for row in files.moments[-1].content.jobs} == set(State)


def _write_tail(log: Path, cut: int, tail: bytes) -> None:
    with log.open("r+b") as file:
        os.pwrite(file.fileno(), tail, cut)
        file.truncate(cut + len(tail))


@pytest.mark.faults
@pytest.mark.timeout(size(120, 3600))
async def test_after_a_power_loss_the_bot_starts_and_finds_the_open_jobs(
    files: Files, damaged: Path, chance: random.Random
) -> None:
    for _ in range(size(40, 2_000)):
        cut = chance.randint(0, len(files.wal))
        damaged.write_bytes(files.main)
        damaged.with_name("bot.sqlite3-wal").write_bytes(files.wal[:cut] + garbage_after(files, cut, chance))
        rows = files.at(cut).content.jobs
        async with opening.opened(damaged) as opened:
            ledger = Ledger(opened, spool=damaged.parent)
            open_jobs = [job.id for job in await ledger.open_jobs()]
            today = await ledger.allowances([limit(DAILY, user_id=member) for member in range(1, 5)])
            new_job = await ledger.reserve(reservation(requester(9), limits=[limit(user_id=9)]))
        assert open_jobs == [row[0] for row in rows if row[1] in OPEN_STATES]
        expected_use = [row for row in rows if row[1] != "released" and row[6] < ms(day(NOON).end)]
        assert [one.used for one in today] == [sum(row[3] for row in expected_use if row[2] == n) for n in range(1, 5)]
        rows_found = content(damaged, check=True)
        assert rows_found is not None
        assert (rows_found.jobs[:-1], rows_found.jobs[-1][0]) == (rows, new_job.id)
        damaged.with_name("bot.sqlite3.marker").unlink()


@pytest.mark.faults
@pytest.mark.timeout(size(120, 3600))
def test_a_power_loss_during_a_checkpoint_loses_nothing(files: Files, damaged: Path, chance: random.Random) -> None:
    checkpointed = _checkpointed(damaged, files)
    log = damaged.with_name("bot.sqlite3-wal")
    for _ in range(size(100, 5_000)):
        # Any sectors in any order, because a checkpoint is flushed only at its end.
        done, length = chance.random(), chance.choice((len(files.main), len(checkpointed)))
        sectors = [
            (checkpointed if chance.random() < done else files.main)[at : at + SECTOR]
            for at in range(0, length, SECTOR)
        ]
        damaged.write_bytes(b"".join(sector.ljust(SECTOR, b"\0") for sector in sectors))
        log.write_bytes(files.wal)
        assert content(damaged, check=True) == files.moments[-1].content


def _checkpointed(path: Path, files: Files) -> bytes:
    """The database after a complete checkpoint."""
    path.with_name("bot.sqlite3-wal").write_bytes(files.wal)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    return path.read_bytes()
