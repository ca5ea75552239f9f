"""`backup`, `verify`, and `restore` as the operator uses them, with a bot that runs and without one."""

from __future__ import annotations

import asyncio
import builtins
import errno
import io
import os
import shutil
import signal
import sqlite3
import stat
import sys
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bot.__main__ import main
from bot.domain.models import State
from bot.ops import control
from bot.storage import restoration, stores
from bot.storage.journal import Journal
from bot.supervisor import _answering
from tests.support.e2e import running
from tests.support.factories import NOON, limit, requester, reservation
from tests.support.journaled import OUTPUT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from typing import TypeAlias

    from bot.domain.errors import StorageUnavailable
    from bot.storage.stores import Stores

    Run: TypeAlias = Callable[..., tuple[int, list[str]]]

DATABASE = "pikzels-bot.sqlite3"
OK, FAILED, STORAGE, INTERRUPTED = 0, 1, 74, 130


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The data folder of the commands."""
    folder = tmp_path / "data"
    monkeypatch.setenv("BOT_STORAGE__FOLDER", str(folder))
    monkeypatch.chdir(tmp_path)
    mask = os.umask(0o022)
    yield folder
    os.umask(mask)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, list[str]]]:
    """Run a command; returns its exit code and the lines that it prints."""

    def run(*arguments: object) -> tuple[int, list[str]]:
        code = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return code, (printed.out + printed.err).splitlines()

    return run


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Stores]:
    folder.mkdir(exist_ok=True)
    unexpected: list[StorageUnavailable] = []
    async with stores.opened(
        folder, spool=folder / "spool", clock=lambda: NOON, on_unavailable=unexpected.append
    ) as found:
        yield found
    assert unexpected == []


async def make(found: Stores, count: int, *, delivered: bool = True) -> None:
    """So many requests, delivered or still in progress."""
    for _ in range(count):
        job = await found.repository.reserve(reservation(requester(), limits=[limit(99)]))
        job = await found.repository.sending(await found.repository.acked(job, message_id=5), now=NOON)
        if delivered:
            job = await found.repository.generated(job, OUTPUT, now=NOON)
            await found.repository.delivered(job, message_id=5, now=NOON)


async def life(folder: Path, *counts: int) -> None:
    """The bot runs once for every count, and makes so many images."""
    for count in counts:
        async with opened(folder) as found:
            await make(found, count)


def jobs(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT COUNT(*) FROM jobs").fetchone()[0])


def in_folder(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- backup ----------------------------------------------------------------------------------------------------------


def test_a_stopped_bot_is_backed_up_without_secrets_and_without_a_migration(folder: Path, run: Run) -> None:
    asyncio.run(life(folder, 2))
    with closing(sqlite3.connect(folder / DATABASE)) as connection:
        connection.execute("PRAGMA user_version = 6")
    code, [line] = run("backup", "copy.sqlite3")
    assert (code, line.startswith("Backed up to copy.sqlite3 (")) == (OK, True)
    assert jobs(Path("copy.sqlite3")) == 2
    [in_rotation] = (folder / "backups").iterdir()
    assert in_rotation.read_bytes() == Path("copy.sqlite3").read_bytes()
    for path in (in_rotation, Path("copy.sqlite3")):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for path in (in_rotation, folder / DATABASE):
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA user_version").fetchone() == (6,)


async def test_a_running_bot_makes_the_backup_itself(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(folder, monkeypatch) as live, _answering(live.app):
        await live.made()
        assert stat.S_IMODE((folder / control.NAME).stat().st_mode) == 0o600
        code, lines = await asyncio.to_thread(run, "backup")
        made = live.app.storage.backups.newest()
        assert made is not None
        assert (code, lines) == (OK, [f"Backed up to {made.path.absolute()} ({made.size / 1024**2:.1f} MB)."])
        code, lines = await asyncio.to_thread(run, "backup", "copy.sqlite3")
        assert (code, jobs(Path("copy.sqlite3"))) == (OK, 1)
        shutil.rmtree(folder / "backups")
        (folder / "backups").write_text("in the way")
        code, lines = await asyncio.to_thread(run, "backup")
        assert (code, lines) == (FAILED, ["The database was not backed up: File exists."])
    assert not (folder / control.NAME).exists()


async def test_a_data_folder_may_have_a_longer_path_than_a_socket(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder / ("f" * 100) / "data"
    folder.parent.mkdir(parents=True)
    monkeypatch.setenv("BOT_STORAGE__FOLDER", str(folder))
    async with running(folder, monkeypatch) as live, _answering(live.app):
        await live.made()
        assert stat.S_IMODE((folder / control.NAME).stat().st_mode) == 0o600
        code, _ = await asyncio.to_thread(run, "backup", "running.sqlite3")
        assert (code, jobs(Path("running.sqlite3"))) == (OK, 1)
    assert not (folder / control.NAME).exists()
    code, _ = await asyncio.to_thread(run, "backup", "stopped.sqlite3")
    assert (code, jobs(Path("stopped.sqlite3"))) == (OK, 1)


async def test_a_database_that_is_in_use_and_does_not_answer_is_neither_copied_nor_replaced(
    folder: Path, run: Run
) -> None:
    async with opened(folder) as found:
        await make(found, 1)
        await found.backups.make()
        said = await asyncio.to_thread(run, "backup")
        assert said == (STORAGE, [f"The database {folder / DATABASE} is in use by a running bot."])
        said = await asyncio.to_thread(run, "restore", next((folder / "backups").iterdir()), "--yes")
        assert said == (STORAGE, ["The database is in use by a running bot."])
        said = await asyncio.to_thread(run, "verify", folder / DATABASE)
        assert said == (STORAGE, ["The database is in use by a running bot; verify a backup of it."])
        await make(found, 1)


def test_what_cannot_be_backed_up_is_one_sentence(folder: Path, run: Run) -> None:
    assert run("backup") == (STORAGE, [f"The database {folder / DATABASE} does not exist."])
    asyncio.run(life(folder, 1))
    Path("mine").touch()
    assert run("backup", "mine") == (FAILED, ["mine exists already; name a new file."])
    assert run("backup", "nowhere/mine") == (FAILED, ["There is no folder nowhere."])
    assert run("backup", "mine/mine") == (FAILED, ["There is no folder mine."])
    assert not (folder / "backups").exists()
    name = "x" * 255  # too long for a name with `.part` at its end
    code, [line] = run("backup", name)
    [made] = (folder / "backups").iterdir()
    assert (code, line) == (FAILED, f"Backed up to {made}, but not copied to {name}: File name too long.")
    with closing(sqlite3.connect(folder / DATABASE)) as connection:
        connection.executescript("DROP TRIGGER entries_remain; DELETE FROM entries;")
    code, [line] = run("backup")
    assert (code, line[:49]) == (FAILED, "The database was not backed up: the database is n")
    assert [name for name in in_folder(folder / "backups") if not name.endswith(".sqlite3")] == []


def test_a_damaged_database_is_not_backed_up_and_the_reason_is_said(folder: Path, run: Run) -> None:
    asyncio.run(life(folder, 60))
    whole = (folder / DATABASE).read_bytes()
    for damaged in (whole[: len(whole) // 3], b"not a database " * 500):
        (folder / DATABASE).write_bytes(damaged)
        code, [line] = run("backup")
        assert (code, line[:32]) == (FAILED, "The database was not backed up: ")
        assert "database" in line[32:]
        assert list(folder.glob("backups/*")) == []


def test_what_only_the_journal_knows_is_not_kept_silent(folder: Path, run: Run) -> None:
    asyncio.run(life(folder, 1))
    Journal(folder / "journal").append({"job": "x", "step": "parked", "at": 1})
    code, lines = run("backup")
    assert (code, lines[1]) == (
        OK,
        "The journal has 1 record that this backup lacks. Start the bot once before you rely on it.",
    )


# --- verify ----------------------------------------------------------------------------------------------------------


def test_a_good_backup_is_a_list_of_good_news_and_stays_as_it_is(folder: Path, run: Run) -> None:
    asyncio.run(life(folder, 3))
    shutil.copy(folder / DATABASE, "copy")
    before = Path("copy").read_bytes()
    code, lines = run("verify", "copy")
    assert code == OK
    assert [line[:7] for line in lines[:-1]] == ["ok     "] * 8
    assert lines[-1] == "3 requests, schema 7, last change on 2026-11-22 at 12:00:00 UTC."
    assert (Path("copy").read_bytes(), in_folder(Path())) == (before, ["copy", "data"])


BROKEN = {
    "Endings: the entries of job": "DROP TRIGGER entries_remain; DELETE FROM entries WHERE kind = 'charge'",
    "Endings: the entries of job ": "UPDATE jobs SET state = 'released', reason = 'x' WHERE rowid = 1",
    "Credits: the credits of job": "UPDATE jobs SET cost = cost + 1 WHERE rowid = 2",
    "Credits by day: the entries of the day": "UPDATE totals SET used = used - 1 WHERE scope = 'bot'",
    "Credits by day: the entries of the day ": "DELETE FROM totals WHERE scope = 'bot' AND period = 20261122",
    "Dollars by day: the entries of the day": "UPDATE totals SET used = 7 WHERE scope = 'money'",
    "References: a row of the table jobs": "UPDATE jobs SET parent_id = 'none' WHERE rowid = 1",
    "Schema: it was written by a newer version": "PRAGMA user_version = 9999",
    "Schema: it is no database of this program": "PRAGMA user_version = 0",
}


@pytest.mark.parametrize("problem", BROKEN)
def test_what_is_wrong_is_named(folder: Path, run: Run, problem: str) -> None:
    asyncio.run(life(folder, 3))
    with closing(sqlite3.connect(folder / DATABASE)) as connection:
        connection.execute("INSERT INTO totals VALUES ('bot', 0, 0, 20261101, 0)")  # of a day without any entry left
        connection.executescript(BROKEN[problem])
        connection.commit()
    for command in ("verify", "restore"):
        shutil.copy(folder / DATABASE, "copy")
        code, lines = run(command, "copy")
        assert code == FAILED
        assert sum(line.startswith(f"error  {problem}") for line in lines) == 1, lines
    assert lines[-1] == "Nothing was changed."


def test_damage_and_other_files_are_told_apart(folder: Path, run: Run) -> None:
    asyncio.run(life(folder, 60))
    content = bytearray((folder / DATABASE).read_bytes())
    content[len(content) // 2 : len(content) // 2 + 9000] = bytes(9000)
    Path("damaged").write_bytes(content)
    Path("cut").write_bytes(content[: len(content) // 3])
    Path("text").write_text("not a database " * 500)
    Path("empty").touch()
    for name, line in {
        "damaged": "error  Pages: ",
        "cut": "error  ",
        "text": "error  File: ",
        "empty": "error  Schema:",
    }.items():
        code, lines = run("verify", name)
        assert code == FAILED
        assert any(found.startswith(line) for found in lines), (name, lines)
    assert run("verify", "none") == (FAILED, ["There is no file none."])
    assert run("restore", "none") == (FAILED, ["There is no file none."])


async def test_a_copy_with_its_write_ahead_log_is_verified_and_restored_together(folder: Path, run: Run) -> None:
    async with opened(folder) as found:
        await make(found, 4)
        for ending in ("", "-wal"):  # as an operator without this program would copy it
            shutil.copy(folder / f"{DATABASE}{ending}", f"copy{ending}")
    code, lines = await asyncio.to_thread(run, "verify", "copy")
    assert (code, lines[-1][:10]) == (OK, "4 requests")
    assert in_folder(Path()) == ["copy", "copy-wal", "data"]
    code, _ = await asyncio.to_thread(run, "restore", "copy", "--yes")
    assert (code, jobs(folder / DATABASE)) == (OK, 4)


# --- restore ---------------------------------------------------------------------------------------------------------


async def prepare(folder: Path) -> Path:
    """A bot is backed up with 2 images and one in progress, makes 3 more, and is killed."""
    async with opened(folder) as found:
        await make(found, 2)
        await make(found, 1, delivered=False)
        backup = (await found.backups.make()).path
        await make(found, 3)
        killed = shutil.copytree(folder, folder.with_name("killed"))
    shutil.rmtree(folder)
    killed.rename(folder)
    return backup


def test_a_restoration_says_what_it_loses_and_keeps_the_database_that_it_replaces(folder: Path, run: Run) -> None:
    backup = asyncio.run(prepare(folder))
    (folder / "forgotten").write_text("as it is")
    code, lines = run("restore", backup, "--yes")
    assert code == OK
    assert lines[8] == "3 requests, schema 7, last change on 2026-11-22 at 12:00:00 UTC."
    assert lines[9].startswith("The database has 3 requests that this backup lacks, and 3 charges.")
    assert lines[12] == (
        f"Restored. The database is {folder / DATABASE}."
        " The next start alerts you that an older copy replaced the database."
    )
    [kept] = folder.glob("replaced-*")
    assert str(kept) in lines[13]
    assert (jobs(folder / DATABASE), jobs(kept / DATABASE)) == (3, 6)
    assert stat.S_IMODE(kept.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / DATABASE).stat().st_mode) == 0o600
    assert (kept / "journal").read_bytes() == (folder / "journal").read_bytes()
    assert (folder / "forgotten").read_text() == "as it is"
    assert [name for name in in_folder(folder) if ".restoring" in name or name.endswith("-wal")] == []


async def test_the_start_after_it_treats_the_database_as_an_older_copy(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = await prepare(folder)
    (folder / f"{DATABASE}.marker").write_text("0\n")  # of a version that named no start
    assert (await asyncio.to_thread(run, "restore", backup, "--yes"))[0] == OK
    async with running(folder, monkeypatch) as live:
        assert live.app.storage.database.restored
        await live.app.use_case.recovery.idle(10)
        assert await live.app.storage.ledger.open_jobs() == []
        rows = await live.app.storage.database.run("SELECT state FROM jobs")
        await live.app.sweep()
    assert sorted(row["state"] for row in rows) == [State.DELIVERED, State.DELIVERED, State.RELEASED]
    async with running(folder, monkeypatch, connect=False) as live:
        assert not live.app.storage.database.restored


async def test_a_backup_without_any_later_entry_is_an_older_copy_too(folder: Path, run: Run) -> None:
    async with opened(folder) as found:
        await make(found, 1)
        backup = (await found.backups.make()).path
        shutil.copy(backup, "copy")
    assert (await asyncio.to_thread(run, "restore", "copy", "--yes"))[0] == OK
    async with opened(folder) as found:
        assert found.database.restored


async def test_a_backup_is_restored_on_a_new_machine(folder: Path, run: Run) -> None:
    backup = shutil.copy(await prepare(folder), "copy")
    shutil.rmtree(folder)
    code, lines = await asyncio.to_thread(run, "restore", backup, "--yes")
    assert code == OK
    assert lines[9] == "There is no database that can be read, so this backup is all there is."
    assert in_folder(folder) == [DATABASE, f"{DATABASE}.marker"]
    async with opened(folder) as found:
        assert found.database.restored


async def test_a_damaged_database_is_replaced_and_kept_as_it_is(folder: Path, run: Run) -> None:
    backup = await prepare(folder)
    for damaged in (b"beyond reading" * 1000, b""):
        (folder / DATABASE).write_bytes(damaged)
        (folder / f"{DATABASE}-wal").unlink(missing_ok=True)
        (folder / f"{DATABASE}.marker").unlink(missing_ok=True)
        shutil.rmtree(next(folder.glob("replaced-*"), folder / "none"), ignore_errors=True)
        assert (await asyncio.to_thread(run, "restore", backup, "--yes"))[0] == OK
        [kept] = folder.glob("replaced-*")
        assert (kept / DATABASE).read_bytes()[:6] == (damaged[:6] or b"SQLite")
        async with opened(folder) as found:
            assert found.database.restored
        assert jobs(folder / DATABASE) == 3


def test_nothing_is_restored_without_a_yes(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    backup = asyncio.run(prepare(folder))
    monkeypatch.setenv("BOT_STORAGE__FOLDER", "data")  # in this folder, and the question says so

    def answer(text: str | type[BaseException]) -> None:
        def read(question: str) -> str:
            assert question == f"Restore it to {folder / DATABASE}? Type yes: "
            if isinstance(text, str):
                return text
            raise text

        monkeypatch.setattr(builtins, "input", read)

    for no in ("", "no", "maybe", EOFError):
        answer(no)
        assert run("restore", backup)[0] == FAILED
    answer(KeyboardInterrupt)
    code, lines = run("restore", backup)
    assert (code, lines[-1]) == (INTERRUPTED, "Nothing was changed.")
    assert jobs(folder / DATABASE) == 6
    assert [name for name in in_folder(folder) if "re" in name and name != "reserve"] == []
    answer("yes")
    assert run("restore", backup)[0] == OK
    assert jobs(folder / DATABASE) == 3


def test_ctrl_c_while_the_database_is_replaced_is_too_late(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = asyncio.run(prepare(folder))
    link = os.link

    def interrupted(source: Path, target: Path) -> None:
        signal.raise_signal(signal.SIGINT)
        link(source, target)

    monkeypatch.setattr(os, "link", interrupted)
    code, lines = run("restore", backup, "--yes")
    assert (code, lines[-2][:9], jobs(folder / DATABASE)) == (OK, "Restored.", 3)


class Full(io.StringIO):
    """A standard output without a buffer, whose disk is full after the restoration."""

    def write(self, text: str) -> int:
        if text.startswith("Restored."):
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(text)


def test_output_that_cannot_be_written_is_not_taken_for_a_failed_restoration(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = asyncio.run(prepare(folder))
    monkeypatch.setattr(sys, "stdout", Full())
    assert run("restore", backup, "--yes") == (FAILED, ["The output cannot be written: No space left on device."])
    assert jobs(folder / DATABASE) == 3


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can act for another user")
def test_what_root_restores_belongs_to_the_user_of_the_bot(folder: Path, run: Run) -> None:
    backup = asyncio.run(prepare(folder))
    for path in (folder, *folder.rglob("*")):
        os.chown(path, 10001, 10001)
    (folder / f"{DATABASE}.marker").unlink()  # and a new one is written
    assert run("restore", backup, "--yes")[0] == OK
    assert run("backup")[0] == OK
    paths = [folder, *folder.rglob("*")]
    assert {path.name.partition("-2")[0] for path in paths} >= {DATABASE, f"{DATABASE}.marker", "replaced", "backups"}
    assert [path for path in paths if (path.stat().st_uid, path.stat().st_gid) != (10001, 10001)] == []


def test_the_write_ahead_log_is_found_through_a_link(folder: Path, run: Run) -> None:
    asyncio.run(prepare(folder))
    killed = folder.rename(folder.with_name("other machine"))
    link = folder.with_name("link.sqlite3")
    link.symlink_to(killed / DATABASE)
    assert run("verify", link)[1][-1].startswith("6 requests, ")
    assert run("restore", link, "--yes")[0] == OK
    assert jobs(folder / DATABASE) == 6


def test_what_a_second_history_would_lose_is_said(folder: Path, run: Run) -> None:
    backup = shutil.copy(asyncio.run(prepare(folder)), "copy")
    assert run("restore", backup, "--yes")[0] == OK
    asyncio.run(life(folder, 2))  # with the same numbers of entries as the requests that were replaced
    [replaced] = folder.glob("replaced-*")
    lines = run("restore", replaced / DATABASE, "--yes")[1]
    assert lines[9].startswith("The database has 2 requests that this backup lacks, and 2 charges.")


async def test_the_database_of_another_running_bot_is_no_backup(folder: Path, run: Run) -> None:
    async with opened(folder.with_name("other")) as found:
        await make(found, 1)
        code, [line] = await asyncio.to_thread(run, "restore", folder.with_name("other") / DATABASE, "--yes")
    assert (code, line) == (
        FAILED,
        "Nothing was restored: a running bot uses it; make a backup of it, and restore that one.",
    )
    assert not (folder / DATABASE).exists()


def test_a_database_that_is_a_link_is_replaced_where_it_is(folder: Path, run: Run) -> None:
    backup = asyncio.run(prepare(folder))
    disk = folder.with_name("disk")
    disk.mkdir()
    for name in (DATABASE, f"{DATABASE}-wal"):
        (folder / name).rename(disk / name)
    (folder / DATABASE).symlink_to(disk / DATABASE)
    assert run("restore", backup, "--yes")[0] == OK
    assert ((folder / DATABASE).is_symlink(), jobs(disk / DATABASE), in_folder(disk)) == (True, 3, [DATABASE])
    [replaced] = folder.glob("replaced-*")
    assert jobs(replaced / DATABASE) == 6
    restoration.remove_leftovers(folder / DATABASE, now=datetime.now(UTC))
    assert replaced.exists()


def test_what_was_replaced_can_be_restored_again(folder: Path, run: Run) -> None:
    backup = asyncio.run(prepare(folder))
    assert run("restore", backup, "--yes")[0] == OK
    [replaced] = folder.glob("replaced-*")
    before = replaced.rename(replaced.with_name("replaced-20261122T120000Z"))  # or both would be of this second
    code, lines = run("restore", before / DATABASE, "--yes")
    assert (code, jobs(folder / DATABASE)) == (OK, 6)
    assert lines[9].startswith("The database has 0 requests that this backup lacks")


def test_the_database_itself_is_no_backup(folder: Path, run: Run) -> None:
    asyncio.run(life(folder, 1))
    assert run("restore", folder / DATABASE) == (FAILED, ["Nothing was restored: it is the database itself."])


class Killed(BaseException):
    """The process ends here."""


async def test_a_kill_at_any_step_leaves_the_old_database_or_the_new_one(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step is a call that changes something on the disk."""
    backup = await prepare(folder)
    before = shutil.copytree(folder, folder.with_name("before"))
    for killed_at in range(100):
        shutil.rmtree(folder)
        shutil.copytree(before, folder)
        steps = _kill(monkeypatch, killed_at)
        try:
            code, _ = await asyncio.to_thread(run, "restore", backup, "--yes")
        except Killed:
            code = -1
        monkeypatch.undo()
        monkeypatch.setenv("BOT_STORAGE__FOLDER", str(folder))
        is_new = jobs(folder / DATABASE) == 3
        async with opened(folder) as found:
            [[count]] = await found.database.run("SELECT COUNT(*) FROM jobs")
            assert count == (3 if is_new else 6)
            assert found.database.restored == is_new
            await found.forget_replaced(now=NOON)
            assert len(list(folder.glob("replaced-*"))) == is_new
            assert not list(folder.glob("*.restoring*"))
        if code == OK:
            break
    assert is_new
    assert len(steps) == killed_at > 10


def _kill(monkeypatch: pytest.MonkeyPatch, killed_at: int) -> list[str]:
    """Kill the process before the step with that number; returns the steps."""
    steps: list[str] = []

    def step(owner: object, name: str) -> None:
        done = getattr(owner, name)

        def stepped(*arguments: object, **options: object) -> object:
            if len(steps) == killed_at:
                raise Killed
            steps.append(name)
            return done(*arguments, **options)

        monkeypatch.setattr(owner, name, stepped)

    for owner, names in {
        os: ("open", "fsync", "link"),
        shutil: ("copyfile",),
        Path: ("mkdir", "replace"),
    }.items():
        for name in names:
            step(owner, name)
    return steps


def test_what_was_replaced_is_deleted_after_two_weeks(folder: Path) -> None:
    folder.mkdir()
    for name in ("replaced-20261108T115959Z", "replaced-20261109T120000Z", "replaced-by-me"):
        (folder / name).mkdir()
        (folder / name / DATABASE).touch()
    restoration.remove_leftovers(folder / DATABASE, now=NOON)
    assert in_folder(folder) == ["replaced-20261109T120000Z", "replaced-by-me"]


# --- the socket ------------------------------------------------------------------------------------------------------


async def test_a_socket_that_a_kill_has_left_is_replaced_and_asks_nobody(tmp_path: Path) -> None:
    path = tmp_path / control.NAME
    server = await asyncio.start_unix_server(lambda *_: None, path)
    server.close()
    await server.wait_closed()
    for nobody in (path, tmp_path / "none"):
        assert await asyncio.to_thread(control.ask, nobody, "backup") is None

    async def answer() -> dict[str, str]:
        return {"path": "x"}

    async with control.served(path, {"backup": answer}):
        assert await asyncio.to_thread(control.ask, path, "backup") == {"path": "x"}
        unknown = await asyncio.to_thread(control.ask, path, "explode")
        assert unknown == {"problem": "the bot does not know this command"}


async def test_who_waits_for_an_answer_when_the_bot_stops_is_told(tmp_path: Path) -> None:
    path = tmp_path / control.NAME
    asked = asyncio.Event()

    async def answer() -> dict[str, str]:
        asked.set()
        await asyncio.Event().wait()
        return {}

    async with asyncio.timeout(10):
        async with control.served(path, {"backup": answer}):
            asking = asyncio.create_task(asyncio.to_thread(control.ask, path, "backup"))
            await asked.wait()
        assert await asking == {"problem": "the bot stopped before it answered"}


async def test_a_folder_with_a_name_too_long_for_a_socket_only_lacks_the_socket(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "_DESCRIPTORS", tmp_path / "none")  # as on macOS, where there is no way around it
    path = tmp_path / ("x" * 120) / control.NAME
    path.parent.mkdir()
    async with control.served(path, {}):
        assert control.ask(path, "backup") is None
        assert "no command can ask this bot for a backup (the path of the socket has more than 103 " in caplog.text
