from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from contextlib import asynccontextmanager, closing, suppress
from contextvars import ContextVar
from functools import partial
from importlib import resources
from typing import TYPE_CHECKING, Any, ClassVar, cast

import pytest

from bot.domain.errors import DatabaseUnusable, StorageUnavailable
from bot.storage import database, opening

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from pathlib import Path

    import aiosqlite

    from bot.storage.database import Database, Transaction


JOB = (
    "INSERT INTO jobs (id, interaction_id, state, user_id, channel_id, upload_limit, request,"
    " cost, asked_at, created_at, private) VALUES ('j', 1, 'reserved', 1, 1, 1, '{}', 1, 1, 1, 0)"
)
ENTRY = "INSERT INTO entries (job_id, kind, user_id, held, spent, counted_at, at) VALUES ('j', 'hold', 1, 1, 0, 1, 1)"


@asynccontextmanager
async def open_database(folder: Path) -> AsyncIterator[Database]:
    async with opening.opened(folder / "bot.sqlite3") as opened:
        yield opened


async def value_of(opened: Database, name: str) -> str | None:
    rows = await opened.run("SELECT value FROM facts WHERE name = ?", (name,))
    return rows[0]["value"] if rows else None


async def names_in(opened: Database) -> list[str]:
    """The names of the values that a test has set."""
    return [
        row["name"]
        for row in await opened.run("SELECT name FROM facts WHERE name NOT IN ('start', 'marker') ORDER BY name")
    ]


INSERT = "INSERT INTO facts (name, value) VALUES (?, ?)"


async def set_value(opened: Database, name: str, value: str = "x") -> None:
    await opened.run(INSERT, (name, value))


async def test_written_values_are_there_after_reopening(tmp_path: Path) -> None:
    async with open_database(tmp_path) as opened:
        await set_value(opened, "a", "1")
    async with open_database(tmp_path) as opened:
        assert await value_of(opened, "a") == "1"


async def test_the_safety_settings_are_active(tmp_path: Path) -> None:
    async with open_database(tmp_path) as opened:
        expected = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "locking_mode": "exclusive"}
        expected |= {"fullfsync": 1, "checkpoint_fullfsync": 1}  # of effect on macOS only
        found = {name: (await opened.run(f"PRAGMA {name}"))[0][0] for name in expected}
    assert found == expected
    assert not (tmp_path / "bot.sqlite3-shm").exists()


async def test_a_failed_transaction_leaves_nothing_behind(tmp_path: Path) -> None:
    def steps(transaction: Transaction) -> None:
        transaction.run(INSERT, ("half", "x"))
        raise RuntimeError("in the middle")

    async with open_database(tmp_path) as opened:
        with pytest.raises(RuntimeError, match="in the middle"):
            await opened.write(steps)
        assert await value_of(opened, "half") is None


async def test_one_failure_in_a_group_does_not_affect_the_other_transactions(tmp_path: Path) -> None:
    def succeeding(name: str, transaction: Transaction) -> str:
        transaction.run(INSERT, (name, "x"))
        return name

    def failing(transaction: Transaction) -> str:
        transaction.run(INSERT, ("failing", "x"))
        transaction.run(INSERT, ("failing", "x"))  # the name exists now
        return "never"

    async with open_database(tmp_path) as opened:
        works = [opened.write(partial(succeeding, name)) for name in "abc"]
        outcomes = await asyncio.gather(*works, opened.write(failing), set_value(opened, "d"), return_exceptions=True)
        assert outcomes[:3] == ["a", "b", "c"]
        assert isinstance(outcomes[3], sqlite3.IntegrityError)
        names = await names_in(opened)
    assert names == ["a", "b", "c", "d"]


async def test_data_deleted_before_a_kill_is_gone_from_the_disk_after_the_next_start(tmp_path: Path) -> None:
    async with open_database(tmp_path) as opened:
        await set_value(opened, "canary-4f1c")
        await opened.run("DELETE FROM facts")
        for name in ("bot.sqlite3", "bot.sqlite3-wal"):  # what a kill would leave
            (tmp_path / "killed").mkdir(exist_ok=True)
            shutil.copy(tmp_path / name, tmp_path / "killed" / name)
    assert b"canary-4f1c" in (tmp_path / "killed" / "bot.sqlite3-wal").read_bytes()
    async with open_database(tmp_path / "killed"):
        left = [path for path in (tmp_path / "killed").iterdir() if b"canary-4f1c" in path.read_bytes()]
    assert left == []


async def test_a_full_disk_fails_only_the_transaction_that_does_not_fit(tmp_path: Path) -> None:
    def large(transaction: Transaction) -> None:
        transaction.run(INSERT, ("large", "x" * 100_000))

    async with open_database(tmp_path) as opened:
        [[pages]] = await opened.run("PRAGMA page_count")
        await opened.run(f"PRAGMA max_page_count = {pages + 3}")
        works = [set_value(opened, "before"), opened.write(large), set_value(opened, "after")]
        outcomes = await asyncio.gather(*works, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [type(None), StorageUnavailable, type(None)]
        assert "full" in str(outcomes[1])
        assert await names_in(opened) == ["after", "before"]
        await opened.run("PRAGMA max_page_count = 1073741823")
        await opened.write(large)
        assert await names_in(opened) == ["after", "before", "large"]


async def test_cancelling_a_caller_stops_neither_its_transaction_nor_the_next(tmp_path: Path) -> None:
    inside, proceed = threading.Event(), threading.Event()

    def slow(transaction: Transaction) -> None:
        transaction.run(INSERT, ("first", "x"))
        inside.set()
        assert proceed.wait(10)
        transaction.run(INSERT, ("second", "x"))

    async with open_database(tmp_path) as opened:
        caller = asyncio.create_task(opened.write(slow))
        assert await asyncio.to_thread(inside.wait, 10)
        caller.cancel()
        await asyncio.wait([caller])
        after = asyncio.create_task(set_value(opened, "after"))
        proceed.set()
        await after
        names = await names_in(opened)
    assert caller.cancelled()
    assert sorted(names) == ["after", "first", "second"]


async def test_a_second_instance_is_refused_because_the_database_is_in_use(tmp_path: Path) -> None:
    script = (
        "import asyncio, pathlib, sys\n"
        "from bot.domain import errors\n"
        "from bot.storage import opening\n"
        "async def main():\n"
        "    async with opening.opened(pathlib.Path(sys.argv[1])): pass\n"
        "try: asyncio.run(main())\n"
        "except errors.DatabaseUnusable as trouble: print(trouble.problem)\n"
    )
    async with open_database(tmp_path):
        command = [sys.executable, "-c", script, str(tmp_path / "bot.sqlite3")]
        child = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=30, check=True)
    assert child.stdout.strip() == "is in use by another instance"


async def test_a_database_of_a_newer_version_is_refused_and_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "bot.sqlite3"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 9999")
    connection.close()
    with pytest.raises(DatabaseUnusable, match="newer version"):
        async with opening.opened(path):
            pass
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,)
    connection.close()


async def test_a_missing_database_is_never_silently_replaced_by_an_empty_one(tmp_path: Path) -> None:
    async with open_database(tmp_path):
        pass
    (tmp_path / "bot.sqlite3").unlink()
    with pytest.raises(DatabaseUnusable, match="missing although it existed before"):
        async with open_database(tmp_path):
            pass
    assert not (tmp_path / "bot.sqlite3").exists()
    (tmp_path / "bot.sqlite3.marker").unlink()
    async with open_database(tmp_path) as opened:
        assert not opened.restored


async def test_a_restored_older_copy_is_detected_once(tmp_path: Path) -> None:
    path, copy = tmp_path / "bot.sqlite3", tmp_path / "copy.sqlite3"
    async with open_database(tmp_path) as opened:
        await opened.run(JOB)
    copy.write_bytes(path.read_bytes())
    async with open_database(tmp_path) as opened:
        assert not opened.restored
        await opened.run(ENTRY)
    copy.replace(path)
    async with open_database(tmp_path) as opened:
        assert opened.restored
    async with open_database(tmp_path) as opened:
        assert not opened.restored


async def copy_of(opened: Database, path: Path) -> None:
    """Copy an open database, as a backup would."""
    await opened._connection.execute_fetchall("VACUUM INTO ?", (str(path),))


async def test_a_copy_from_before_the_start_that_was_killed_is_detected(tmp_path: Path) -> None:
    path, marker, copy = tmp_path / "bot.sqlite3", tmp_path / "bot.sqlite3.marker", tmp_path / "copy.sqlite3"
    async with open_database(tmp_path) as opened:
        await copy_of(opened, copy)
    async with open_database(tmp_path):
        written_at_the_start = marker.read_bytes()
    marker.write_bytes(written_at_the_start)  # as a kill would leave it: no entry is missing from the copy
    copy.replace(path)
    async with open_database(tmp_path) as opened:
        assert opened.restored
    async with open_database(tmp_path) as opened:
        assert not opened.restored


async def test_a_copy_from_the_hour_before_the_last_checkpoint_is_detected(tmp_path: Path) -> None:
    path, marker, copy = tmp_path / "bot.sqlite3", tmp_path / "bot.sqlite3.marker", tmp_path / "copy.sqlite3"
    async with open_database(tmp_path) as opened:
        await opened.run(JOB)
        await copy_of(opened, copy)
        await opened.run(ENTRY)
        await opened.checkpoint()
        written_by_the_checkpoint = marker.read_bytes()
    marker.write_bytes(written_by_the_checkpoint)
    copy.replace(path)
    async with open_database(tmp_path) as opened:
        assert opened.restored


async def test_a_copy_from_before_the_stop_is_detected(tmp_path: Path) -> None:
    async with open_database(tmp_path) as opened:
        await opened.run(JOB)
        await copy_of(opened, tmp_path / "copy.sqlite3")
        await opened.run(ENTRY)
    (tmp_path / "copy.sqlite3").replace(tmp_path / "bot.sqlite3")
    async with open_database(tmp_path) as opened:
        assert opened.restored


async def test_a_marker_that_is_behind_the_database_is_no_reason_for_an_alarm(tmp_path: Path) -> None:
    marker = tmp_path / "bot.sqlite3.marker"
    async with open_database(tmp_path) as opened:
        await opened.run(JOB)
    before = marker.read_bytes()
    for _ in range(3):  # killed each time between the database and the marker
        async with open_database(tmp_path) as opened:
            assert not opened.restored
        marker.write_bytes(before)
    async with open_database(tmp_path) as opened:
        await opened.run(ENTRY)
        assert not opened.restored
        written_at_the_start = marker.read_bytes()
    marker.write_bytes(written_at_the_start)  # killed later
    async with open_database(tmp_path) as opened:
        assert not opened.restored


async def test_a_copy_without_the_id_of_a_start_is_older_than_a_marker_with_one(tmp_path: Path) -> None:
    async with open_database(tmp_path):
        pass
    with sqlite3.connect(tmp_path / "bot.sqlite3") as connection:  # as an earlier version would have left it
        connection.execute("DELETE FROM facts")
    connection.close()
    async with open_database(tmp_path) as opened:
        assert opened.restored


@pytest.mark.parametrize(("content", "restored"), [(b"0\n", False), (b"7\n", True), (b"", False), (b"\xff?\n", False)])
async def test_a_marker_of_an_earlier_version_or_an_unreadable_one_stops_no_start(
    tmp_path: Path, content: bytes, *, restored: bool
) -> None:
    async with open_database(tmp_path):
        pass
    (tmp_path / "bot.sqlite3.marker").write_bytes(content)
    async with open_database(tmp_path) as opened:
        assert opened.restored == restored
    async with open_database(tmp_path) as opened:
        assert not opened.restored


async def test_a_start_that_cannot_be_recorded_raises_no_alarm_later(tmp_path: Path, reserve: Path) -> None:
    for lacking in ((), ("INTO facts",), ()):
        FullDisk.lacking, FullDisk.never = lacking, True
        async with opening.opened(tmp_path / "bot.sqlite3", make_room=reserve.unlink) as opened:
            assert not opened.restored


async def test_the_marker_is_on_the_disk_before_it_replaces_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker, flush, flushed = tmp_path / "bot.sqlite3.marker", os.fsync, list[tuple[bytes, int, int]]()

    def observed(descriptor: int) -> None:
        new = os.fstat(descriptor)
        flushed.append((marker.read_bytes(), new.st_ino, new.st_size))
        flush(descriptor)

    async with open_database(tmp_path):
        pass
    before = marker.read_bytes()
    monkeypatch.setattr(os, "fsync", observed)
    async with open_database(tmp_path):
        after = marker.stat()
        assert flushed == [(before, after.st_ino, after.st_size)]


async def test_a_file_that_is_not_a_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bot.sqlite3").write_bytes(b"this is not a database, it only pretends " * 100)
    with pytest.raises(DatabaseUnusable, match="cannot be used"):
        async with open_database(tmp_path):
            pass


async def test_a_damaged_database_is_refused(tmp_path: Path) -> None:
    async with open_database(tmp_path) as opened:
        for number in range(200):
            await set_value(opened, f"name-{number}", "x" * 200)
    path = tmp_path / "bot.sqlite3"
    content = bytearray(path.read_bytes())
    page = 4096
    for start in range(8 * page, len(content) - page, page):
        content[start : start + 64] = bytes(64)
    path.write_bytes(content)
    with pytest.raises(DatabaseUnusable, match=r"damaged|malformed|cannot be used"):
        async with open_database(tmp_path):
            pass


async def test_ledger_entries_cannot_be_changed_or_deleted(tmp_path: Path) -> None:
    async with open_database(tmp_path) as opened:
        await opened.run(JOB)
        await opened.run(ENTRY)
        for attempt in ("UPDATE entries SET held = 0", "DELETE FROM entries"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                await opened.run(attempt)
        with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
            await opened.run(ENTRY)


# --- a full disk at the start -----------------------------------------------------------------------------------------


class FullDisk(sqlite3.Connection):
    """A connection whose `lacking` statements fail until the reserve is freed; one that never fits fails for ever."""

    lacking: ClassVar[tuple[str, ...]] = ()
    reserve: ClassVar[Path]
    never: ClassVar[bool] = False
    code: ClassVar[int | None] = sqlite3.SQLITE_FULL  # None: an error that says nothing of its cause

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        self._check(sql)
        return super().execute(sql, parameters)

    def executescript(self, sql_script: str, /) -> sqlite3.Cursor:
        if any(part in sql_script for part in self.lacking) and (self.never or self.reserve.exists()):
            super().execute("BEGIN")
            super().execute("CREATE TABLE half_migrated (x)")
        self._check(sql_script)
        return super().executescript(sql_script)

    def _check(self, sql: str) -> None:
        if any(part in sql for part in self.lacking) and (self.never or self.reserve.exists()):
            error = sqlite3.OperationalError("database or disk is full")
            if self.code is not None:
                error.sqlite_errorcode = self.code
            raise error


@pytest.fixture
def reserve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A reserve of room on a disk that is full; a test says for which statements."""
    FullDisk.reserve = tmp_path / "ballast"
    FullDisk.reserve.write_bytes(b"room")
    monkeypatch.setattr(FullDisk, "never", FullDisk.never)
    monkeypatch.setattr(FullDisk, "lacking", FullDisk.lacking)
    monkeypatch.setattr(FullDisk, "code", FullDisk.code)
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=FullDisk))
    return FullDisk.reserve


async def test_a_log_that_cannot_be_truncated_does_not_stop_a_start(tmp_path: Path, reserve: Path) -> None:
    FullDisk.lacking, FullDisk.never = ("wal_checkpoint", "INTO facts"), True
    async with opening.opened(tmp_path / "bot.sqlite3", make_room=reserve.unlink) as opened:
        assert await value_of(opened, "a") is None
    assert reserve.exists(), "what is not needed now leaves the room to what is"


async def test_a_migration_that_finds_no_room_gets_that_of_the_reserve(tmp_path: Path, reserve: Path) -> None:
    FullDisk.lacking = ("CREATE TABLE jobs",)
    async with opening.opened(tmp_path / "bot.sqlite3", make_room=reserve.unlink) as opened:
        await opened.run(JOB)
        assert await opened.run("SELECT 1 FROM sqlite_schema WHERE name = 'half_migrated'") == []
    assert not reserve.exists()


async def test_a_migration_that_finds_no_room_at_all_is_refused_and_can_be_repeated(
    tmp_path: Path, reserve: Path
) -> None:
    FullDisk.lacking, FullDisk.never = ("CREATE TABLE jobs",), True
    with pytest.raises(DatabaseUnusable, match="disk is full"):
        async with opening.opened(tmp_path / "bot.sqlite3", make_room=reserve.unlink):
            pass
    FullDisk.lacking = ()
    async with open_database(tmp_path) as opened:
        await opened.run(JOB)


async def test_the_reserve_is_never_freed_for_a_database_of_another_instance(tmp_path: Path) -> None:
    freed: list[bool] = []
    async with open_database(tmp_path):
        with pytest.raises(DatabaseUnusable, match="in use"):
            async with opening.opened(tmp_path / "bot.sqlite3", make_room=lambda: freed.append(True)):
                pass
    assert freed == []


async def test_a_marker_that_cannot_be_written_stops_neither_start_nor_stop(tmp_path: Path) -> None:
    async with open_database(tmp_path) as opened:
        await set_value(opened, "a", "1")
    (tmp_path / "bot.sqlite3.marker").unlink()
    (tmp_path / "bot.sqlite3.marker").mkdir()
    async with open_database(tmp_path) as opened:
        assert (opened.restored, await value_of(opened, "a")) == (False, "1")


@pytest.mark.parametrize(
    ("code", "freed"),
    [
        (sqlite3.SQLITE_FULL, True),
        (sqlite3.SQLITE_IOERR, True),
        (sqlite3.SQLITE_IOERR_WRITE, True),
        (sqlite3.SQLITE_CANTOPEN, False),
        (sqlite3.SQLITE_ERROR, False),
        (None, False),
    ],
)
async def test_the_reserve_is_freed_only_for_an_error_that_room_may_help(
    tmp_path: Path, reserve: Path, code: int | None, *, freed: bool
) -> None:
    FullDisk.lacking, FullDisk.never, FullDisk.code = ("CREATE TABLE jobs",), True, code
    with pytest.raises(DatabaseUnusable) as refused:
        async with opening.opened(tmp_path / "bot.sqlite3", make_room=reserve.unlink):
            pass
    assert refused.value.problem == "cannot be used: database or disk is full"
    assert reserve.exists() is not freed


async def test_without_a_reserve_a_start_that_lacks_room_is_refused(tmp_path: Path, reserve: Path) -> None:
    FullDisk.lacking, FullDisk.never = ("CREATE TABLE jobs",), True
    with pytest.raises(DatabaseUnusable, match="disk is full"):
        async with open_database(tmp_path):
            pass
    assert reserve.exists()


async def test_a_checkpoint_on_a_full_disk_still_writes_the_marker(tmp_path: Path, reserve: Path) -> None:
    marker = tmp_path / "bot.sqlite3.marker"
    async with open_database(tmp_path) as opened:
        await opened.run(JOB)
        await opened.run(ENTRY)
        FullDisk.lacking, FullDisk.never = ("wal_checkpoint",), True
        await opened.checkpoint()
        assert marker.read_text().startswith("1\n")


async def test_a_position_that_cannot_be_read_leaves_the_last_marker(tmp_path: Path, reserve: Path) -> None:
    marker = tmp_path / "bot.sqlite3.marker"
    async with open_database(tmp_path) as opened:
        before = marker.read_bytes()
        await opened.run(JOB)
        await opened.run(ENTRY)
        FullDisk.lacking, FullDisk.never = ("MAX(id)",), True
        await opened.checkpoint()
        assert marker.read_bytes() == before
        FullDisk.lacking = ()
        await opened.mark()
        assert marker.read_bytes() != before


async def test_a_transaction_that_cannot_even_be_rolled_back_is_refused_and_does_not_last(
    tmp_path: Path, reserve: Path
) -> None:
    async with open_database(tmp_path) as opened:
        FullDisk.lacking, FullDisk.never = ("INTO facts", "ROLLBACK"), True
        with pytest.raises(StorageUnavailable, match="disk is full"):
            await set_value(opened, "a")
        FullDisk.lacking = ()
        with suppress(StorageUnavailable):  # the first one ends what could not be ended
            await set_value(opened, "b")
        await set_value(opened, "c")
        assert await value_of(opened, "c") == "x"
        assert await value_of(opened, "a") is None


# --- why a start is refused -----------------------------------------------------------------------------------------


async def refusal(folder: Path) -> str:
    with pytest.raises(DatabaseUnusable) as refused:
        async with open_database(folder):
            pass
    return refused.value.problem


async def test_a_path_that_cannot_be_opened_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "bot.sqlite3").mkdir()
    assert await refusal(tmp_path) == "cannot be opened: unable to open database file"


def test_a_refused_start_leaves_no_thread_that_would_report_a_closed_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bot.sqlite3").mkdir()
    before, errors = set(threading.enumerate()), list[threading.ExceptHookArgs]()
    monkeypatch.setattr(threading, "excepthook", errors.append)
    for _ in range(50):
        asyncio.run(refusal(tmp_path))
        for thread in set(threading.enumerate()) - before:
            thread.join(10)
    assert errors == []


async def test_damage_that_only_the_check_finds_is_refused_with_what_it_found(tmp_path: Path) -> None:
    async with open_database(tmp_path) as opened:
        await set_value(opened, "a")
    path = tmp_path / "bot.sqlite3"
    content = bytearray(path.read_bytes())
    content[36:40] = (5).to_bytes(4, "big")  # the length of the list of free pages, which nothing else reads
    path.write_bytes(content)
    with pytest.raises(DatabaseUnusable) as refused:
        async with open_database(tmp_path):
            pass
    assert refused.value.problem.startswith("is damaged: ")
    assert "reelist" in refused.value.problem


async def test_the_newest_schema_is_accepted_and_the_next_one_is_named(tmp_path: Path) -> None:
    async with open_database(tmp_path) as opened:
        [[newest]] = await opened.run("PRAGMA user_version")
        files = resources.files("bot.storage").joinpath("migrations", "sqlite").iterdir()
        assert newest == max(int(file.name[:4]) for file in files)
        await opened.run(f"PRAGMA user_version = {newest + 1}")
    with pytest.raises(DatabaseUnusable) as refused:
        async with open_database(tmp_path):
            pass
    assert refused.value.problem == f"was written by a newer version of this program (schema {newest + 1})"


# --- the marker ------------------------------------------------------------------------------------------------------


async def test_the_marker_has_the_last_entry_and_the_id_of_the_start(tmp_path: Path) -> None:
    marker, starts = tmp_path / "bot.sqlite3.marker", list[str]()
    for _ in range(2):
        async with open_database(tmp_path) as opened:
            start = await value_of(opened, "start")
            assert start is not None
            assert marker.read_text() == f"0\n{start}\n"
            starts.append(start)
    assert starts[0] != starts[1]
    assert [len(start) for start in starts] == [16, 16], "64 random bits"
    async with open_database(tmp_path) as opened:
        assert await value_of(opened, "marker") == f"0\n{starts[1]}\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bot.sqlite3", "bot.sqlite3.marker"]


async def test_a_missing_database_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "bot.sqlite3.marker").write_text("0\n")
    with pytest.raises(DatabaseUnusable) as refused:
        async with open_database(tmp_path):
            pass
    assert refused.value.problem == (
        "is missing although it existed before; restore it, or delete bot.sqlite3.marker to start with an empty one"
    )


async def test_a_marker_that_cannot_be_written_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "bot.sqlite3.marker.part").mkdir()
    async with open_database(tmp_path):
        pass
    lines = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert lines == ["bot.sqlite3.marker could not be written: IsADirectoryError"] * 2, "at the start and at the stop"


# --- groups ----------------------------------------------------------------------------------------------------------


subject: ContextVar[str] = ContextVar("subject", default="")


class WatchedConnection:
    """Commits when its gate is open, and notes how many transactions each commit had, and in whose context."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.commits: list[tuple[int, str]] = []

    async def _execute(self, commit: Callable[[Sequence[Any]], Any], works: Sequence[Any]) -> Any:
        self.commits.append((len(works), subject.get()))
        await self.gate.wait()
        return commit(works)


@pytest.fixture
def watched() -> Iterator[tuple[database.Database, WatchedConnection]]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as raw:
        raw.row_factory = sqlite3.Row
        raw.execute("CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT)")
        connection = WatchedConnection()
        yield database.Database(cast("aiosqlite.Connection", connection), raw, salt=""), connection


async def test_what_waits_together_is_committed_in_groups_that_belong_to_no_caller(
    watched: tuple[database.Database, WatchedConnection],
) -> None:
    opened, connection = watched
    subject.set("the first caller")
    first = asyncio.create_task(set_value(opened, "first"))
    await asyncio.sleep(0)
    others = [asyncio.create_task(set_value(opened, str(number))) for number in range(600)]
    await asyncio.sleep(0)
    connection.gate.set()
    await asyncio.gather(first, *others)
    assert connection.commits == [(1, ""), (256, ""), (256, ""), (88, "")]
    assert len(await names_in(opened)) == 601
    assert not opened.restored


async def test_whoever_waits_until_nothing_is_written_waits_for_the_last_caller(
    watched: tuple[database.Database, WatchedConnection],
) -> None:
    opened, connection = watched
    await opened.drained()
    writing = asyncio.create_task(set_value(opened, "a"))
    await asyncio.sleep(0)
    waiting = asyncio.create_task(opened.drained())
    for _ in range(5):
        await asyncio.sleep(0)
    assert not waiting.done()
    connection.gate.set()
    await asyncio.wait_for(waiting, 10)
    await asyncio.wait_for(writing, 10)
    await opened.mark()  # without a marker there is nothing to write


async def test_a_cancelled_caller_of_a_group_leaves_the_others_their_results(
    watched: tuple[database.Database, WatchedConnection],
) -> None:
    opened, connection = watched
    callers = [asyncio.create_task(opened.run(f"SELECT {number}")) for number in range(3)]
    await asyncio.sleep(0)
    callers[0].cancel()
    connection.gate.set()
    assert [rows[0][0] for rows in await asyncio.gather(*callers[1:])] == [1, 2]
    assert callers[0].cancelled()


async def test_when_the_loop_is_torn_down_no_caller_waits_for_ever(
    watched: tuple[database.Database, WatchedConnection],
) -> None:
    opened, _ = watched
    callers = [asyncio.create_task(set_value(opened, name)) for name in "ab"]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert opened._writer is not None
    opened._writer.cancel()
    await asyncio.wait([*callers, opened._writer], timeout=10)
    assert [one.cancelled() for one in (*callers, opened._writer)] == [True, True, True]


async def test_of_two_transactions_only_the_one_that_cannot_be_committed_fails(tmp_path: Path) -> None:
    async with open_database(tmp_path) as opened:
        works = [opened.run("SELECT nonsense"), set_value(opened, "kept")]
        outcomes = await asyncio.wait_for(asyncio.gather(*works, return_exceptions=True), 10)
        assert [type(outcome) for outcome in outcomes] == [StorageUnavailable, type(None)]
        assert await names_in(opened) == ["kept"]


async def test_a_statement_that_ends_the_transaction_fails_alone(tmp_path: Path) -> None:
    async with open_database(tmp_path) as opened:
        works = [set_value(opened, "before"), opened.run("ROLLBACK"), set_value(opened, "after")]
        outcomes = await asyncio.gather(*works, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [type(None), StorageUnavailable, type(None)]
        assert str(outcomes[1]) == "SQLite rolled back"
        assert await names_in(opened) == ["after", "before"]
