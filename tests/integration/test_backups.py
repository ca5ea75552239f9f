"""Backups of a running database: whole, verified, rotated, and never in anybody's way."""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
import stat
import time
from contextlib import asynccontextmanager, closing, suppress
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from bot import supervisor
from bot.domain.backups import BackupRules
from bot.domain.errors import BackupFailed, StorageUnavailable
from bot.domain.examination import Check
from bot.storage import opening, stores, verification
from tests.support.e2e import running
from tests.support.factories import NOON, limit, requester, reservation
from tests.support.journaled import OUTPUT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime
    from pathlib import Path

    from bot.domain.models import Job
    from bot.storage.stores import Stores

DATABASE = "pikzels-bot.sqlite3"
KEEP_ALL = BackupRules(recent=1000)


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **time: float) -> None:
        self.now += timedelta(**time)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@asynccontextmanager
async def opened(folder: Path, clock: Clock, rules: BackupRules = KEEP_ALL) -> AsyncIterator[Stores]:
    def ignore(_: StorageUnavailable) -> None:
        """A test that expects it looks at the backup."""

    spool = folder / "spool"
    async with stores.opened(folder, spool=spool, clock=clock, on_unavailable=ignore, backup=rules) as found:
        yield found


async def begin(found: Stores, user_id: int = 1) -> Job:
    """A request whose image is being made."""
    job = await found.repository.reserve(reservation(requester(user_id), limits=[limit(10**6, user_id=user_id)]))
    job = await found.repository.acked(job, message_id=5)
    return await found.repository.sending(job, now=NOON)


async def deliver(found: Stores, job: Job) -> None:
    job = await found.repository.generated(job, OUTPUT, now=NOON)
    await found.repository.delivered(job, message_id=5, now=NOON)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "backups").iterdir())


def jobs_in(path: Path) -> dict[str, str]:
    with closing(sqlite3.connect(path)) as connection:
        return dict(connection.execute("SELECT id, state FROM jobs").fetchall())


# --- one backup ------------------------------------------------------------------------------------------------------


async def test_a_backup_has_everything_that_was_committed_and_only_the_owner_may_read_it(
    tmp_path: Path, clock: Clock
) -> None:
    async with opened(tmp_path, clock) as found:
        assert (found.backups.newest(), found.backups.age()) == (None, None)
        jobs = [await begin(found, user_id) for user_id in range(1, 6)]
        await deliver(found, jobs[0])
        made = await found.backups.make()
        await deliver(found, jobs[1])
        assert found.backups.newest() == made
        clock.advance(seconds=90)
        assert found.backups.age() == timedelta(seconds=90)
    assert made.path == tmp_path / "backups" / "pikzels-bot-20261122T120000Z.sqlite3"
    assert jobs_in(made.path) == {job.id: "delivered" if job is jobs[0] else "sending" for job in jobs}
    assert (made.size, made.at) == (made.path.stat().st_size, NOON)
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(made.path.parent.stat().st_mode) == 0o700
    examination = verification.examined(made.path)
    assert (examination.problem, examination.jobs, examination.last_change) == (None, 5, NOON)
    assert [check for check, _ in examination.findings] == list(Check)


async def test_a_backup_is_not_made_again_until_something_changes(tmp_path: Path, clock: Clock) -> None:
    async with opened(tmp_path, clock) as found:
        await begin(found)
        assert await found.backups.make_if_changed() is not None
        clock.advance(hours=1)
        assert await found.backups.make_if_changed() is None
        assert found.backups.age() == timedelta(0), "it still has everything"
        await begin(found)
        assert await found.backups.make_if_changed() is not None
        assert len(files(tmp_path)) == 2


async def test_others_write_while_a_backup_is_made(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path, clock) as found:
        before = await begin(found)
        during: list[Job] = []
        copy = found.database.copy

        async def copy_slowly(target: Path) -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(copy(target))
                during.extend([await begin(found, user_id) for user_id in range(100)])

        monkeypatch.setattr(found.database, "copy", copy_slowly)
        made = await found.backups.make()
        [[truncated]] = await found.database.run("PRAGMA wal_autocheckpoint")
    assert truncated == 1000
    assert before.id in jobs_in(made.path)
    assert len(during) == 100
    assert set(jobs_in(tmp_path / DATABASE)) == {before.id, *(job.id for job in during)}


# --- when it is due --------------------------------------------------------------------------------------------------


async def test_the_next_backup_is_due_after_the_interval_also_after_a_restart(tmp_path: Path, clock: Clock) -> None:
    async with opened(tmp_path, clock) as found:
        assert found.backups.wait() == timedelta(seconds=30), "a start has other things to do"
        await found.backups.make()
        assert found.backups.wait() == timedelta(minutes=5)
        clock.advance(minutes=2)
        assert found.backups.wait() == timedelta(minutes=3)
    async with opened(tmp_path, clock) as found:
        assert found.backups.wait() == timedelta(minutes=3)
        assert overdue(found) is False
        clock.advance(minutes=30)
        assert found.backups.wait() == timedelta(0)
        assert overdue(found) is True
        clock.advance(days=-3)  # somebody sets the clock back
        assert found.backups.wait() <= timedelta(minutes=5)
    clock.advance(days=9)
    async with opened(tmp_path, clock) as found:
        assert found.backups.wait() == timedelta(seconds=30)


def overdue(found: Stores) -> bool:
    return found.backups.is_overdue


async def test_without_an_interval_none_is_made_by_itself(tmp_path: Path, clock: Clock) -> None:
    async with opened(tmp_path, clock, BackupRules(interval=timedelta(0))) as found:
        clock.advance(days=30)
        assert (found.backups.is_scheduled, found.backups.is_overdue) == (False, False)


async def test_old_backups_are_deleted_and_nothing_else_in_their_folder(tmp_path: Path, clock: Clock) -> None:
    async with opened(tmp_path, clock, BackupRules(recent=2, hourly=2, daily=2)) as found:
        for _ in range(30):
            await begin(found)
            await found.backups.make()
            (tmp_path / "backups" / "my-own.sqlite3").touch()
            clock.advance(minutes=20)
    assert files(tmp_path) == [
        "my-own.sqlite3",
        "pikzels-bot-20261122T204000Z.sqlite3",
        "pikzels-bot-20261122T212000Z.sqlite3",
        "pikzels-bot-20261122T214000Z.sqlite3",
    ]


# --- failures --------------------------------------------------------------------------------------------------------


async def test_a_backup_that_leaves_no_room_on_the_disk_is_not_made(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 50 * 1024**2))
    async with opened(tmp_path, clock) as found:
        with pytest.raises(BackupFailed, match="it needs 64 MB of free disk, and there are 50 MB"):
            await found.backups.make()
        assert files(tmp_path) == []
        assert found.backups.newest() is None


async def test_nothing_is_left_of_a_copy_that_does_not_fit_or_is_not_right(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path, clock) as found:
        await begin(found)
        await found.database.run("PRAGMA ignore_check_constraints = ON")
        await found.database.run("DROP TRIGGER entries_remain")
        await found.database.run("DELETE FROM entries")
        with pytest.raises(BackupFailed, match=r"the copy is not right: the entries of job \w+ do not fit its state"):
            await found.backups.make()

        async def fail(_: Path) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        monkeypatch.setattr(found.database, "copy", fail)
        with pytest.raises(BackupFailed, match="database or disk is full"):
            await found.backups.make()
    assert files(tmp_path) == []


async def test_a_folder_that_cannot_be_written_is_named_by_its_problem(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "backups").write_text("in the way")
    async with opened(tmp_path, clock) as found:
        with pytest.raises(BackupFailed, match="File exists"):
            await found.backups.make()


async def test_no_backup_lacks_what_only_the_journal_knows(tmp_path: Path, clock: Clock) -> None:
    async with opened(tmp_path, clock) as found:
        job = await begin(found)
        await found.database._connection.execute_fetchall("PRAGMA query_only = ON")
        job = await found.repository.generated(job, OUTPUT, now=NOON)
        with pytest.raises(BackupFailed, match="the disk is full"):
            await found.backups.make()
        await found.database._connection.execute_fetchall("PRAGMA query_only = OFF")
        for _ in range(500):
            with suppress(BackupFailed):
                made = await found.backups.make()
                break
            await asyncio.sleep(0.01)
            clock.advance(minutes=1)
    assert jobs_in(made.path) == {job.id: "generated"}


async def test_a_start_removes_what_a_kill_left_half_written(tmp_path: Path, clock: Clock) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    (folder / "pikzels-bot-20261122T110000Z.sqlite3.part").write_bytes(b"half")
    async with opened(tmp_path, clock):
        assert files(tmp_path) == []


async def test_a_shutdown_stops_a_backup_and_leaves_nothing_half_written(tmp_path: Path, clock: Clock) -> None:
    async with opened(tmp_path, clock) as found:
        await begin(found)
        making = asyncio.create_task(found.backups.make())
        assert await asyncio.to_thread(appears, tmp_path / "backups")
        making.cancel()
        await asyncio.wait([making], timeout=10)
        assert making.cancelled()
        assert files(tmp_path) == []
        await found.backups.make()
        assert len(files(tmp_path)) == 1


def appears(folder: Path) -> bool:
    """Wait until something is in a folder, in a thread."""
    for _ in range(10_000):
        if list(folder.glob("*")):
            return True
        time.sleep(0.001)
    return False


async def test_the_operator_is_alerted_to_a_backup_that_fails_and_to_one_that_is_overdue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "backups").write_text("in the way")
    async with running(tmp_path, monkeypatch, connect=False) as live:
        for _ in range(2):
            await live.app.back_up()
        assert alerts(caplog) == ["the database was not backed up (File exists); there is none yet"]
        (tmp_path / "backups").unlink()
        await live.app.back_up()
        newest = live.app.storage.backups.newest()
        assert newest is not None
        assert verification.examined(newest.path).problem is None
        monkeypatch.setattr(live.app.storage.backups, "_clock", lambda: newest.at + timedelta(hours=1))
        await live.app.remind()
    assert alerts(caplog)[1:] == [
        f"the database was not backed up (it is overdue); the last one is of {newest.at:%Y-%m-%d %H:%M} UTC"
    ]


async def test_the_running_bot_makes_each_backup_when_it_is_due_until_it_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    async with running(tmp_path, monkeypatch, connect=False, clock=clock) as live:
        clock.advance(minutes=1)
        backing_up = asyncio.create_task(supervisor._back_up(live.app))
        assert await asyncio.to_thread(appears, tmp_path / "backups")
        while live.app.storage.backups.newest() is None:
            await asyncio.wait([backing_up], timeout=0.01)
        backing_up.cancel()
        await asyncio.wait([backing_up])
    async with running(tmp_path, monkeypatch, connect=False, clock=clock, backup={"minutes": 0}) as live:
        await supervisor._back_up(live.app)  # ends at once


def alerts(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [line.removeprefix("operator: ") for line in caplog.messages if line.startswith("operator: ")]


# --- the drill -------------------------------------------------------------------------------------------------------

BACKUPS = 100
MEMBERS = 4
JOBS = 2  # begun during each backup
STARTED = 10  # one backup in so many is also started from


class Load:
    """Members who do all that the ledger knows, at the same time, for as many jobs as there are `turns`."""

    def __init__(self, found: Stores) -> None:
        self._found = found
        self._chance = random.Random(12)  # noqa: S311
        self.turns = asyncio.Semaphore(0)
        self.delivered: set[str] = set()
        self.released: set[str] = set()

    async def member(self, user_id: int) -> None:
        while True:
            await self.turns.acquire()
            job = await begin(self._found, user_id)
            if self._chance.random() < 0.6:
                await deliver(self._found, job)
                self.delivered.add(job.id)
            else:
                await self._found.repository.released(job, reason="outcome_unknown", request_id=None, now=NOON)
                self.released.add(job.id)


async def test_each_of_a_hundred_backups_under_load_has_a_consistent_ledger(tmp_path: Path, clock: Clock) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    known: list[tuple[Path, set[str], set[str]]] = []
    async with opened(folder, clock, BackupRules(recent=BACKUPS)) as found:
        load = Load(found)
        members = [asyncio.create_task(load.member(user_id)) for user_id in range(1, MEMBERS + 1)]
        for _ in range(BACKUPS):
            for _ in range(JOBS):
                load.turns.release()
            done = set(load.delivered), set(load.released)
            known.append(((await found.backups.make()).path, *done))
            clock.advance(minutes=5)
        for member in members:
            member.cancel()
        await asyncio.wait(members)
        assert all(member.cancelled() for member in members)
    for number, (path, delivered, released) in enumerate(known):
        examination = verification.examined(path)
        assert (examination.problem, len(examination.findings)) == (None, len(Check))
        states = jobs_in(path)
        assert {states[job_id] for job_id in delivered} <= {"delivered"}, "what was done before it is missing"
        assert {states[job_id] for job_id in released} <= {"released"}
        assert sum(state not in ("delivered", "released") for state in states.values()) <= MEMBERS
        if number % STARTED == 0:
            await start_from(path, tmp_path / f"restored-{number}", states)
    assert len({path for path, *_ in known}) == BACKUPS
    assert len(states) > BACKUPS, "there was hardly any load"


async def start_from(backup: Path, folder: Path, states: dict[str, str]) -> None:
    folder.mkdir()
    shutil.copy(backup, folder / DATABASE)
    async with opening.opened(folder / DATABASE) as store:
        rows = await store.run("SELECT id, state FROM jobs")
    assert {row["id"]: row["state"] for row in rows} == states
    assert verification.examined(folder / DATABASE).problem is None
