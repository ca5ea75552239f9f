"""A large database is checked after the bot is online, and nothing escapes the check."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from bot.domain.errors import DatabaseUnusable
from bot.storage import offline, opening
from tests.support.e2e import running
from tests.support.factories import NOON
from tests.support.large_database import damage, enlarge

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bot.storage.database import Database

LATER = "the database is large: it is checked for damage after the start"
WHOLE = "the database is whole"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bot.sqlite3"


@pytest.fixture(autouse=True)
def _logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="bot")


async def start(path: Path, *, check: bool = True) -> str | None:
    """Start and stop; returns what the check found afterwards."""
    async with opening.opened(path) as opened:
        if check:
            await opened.check()
        return opened.damage


async def make_large(path: Path) -> None:
    await start(path)
    enlarge(path)


ENDLESS = "WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i FROM n) SELECT COUNT(*) FROM n"


class Gate(sqlite3.Connection):
    """A check or a copy by a second connection waits until it is let through; an endless one only ends when stopped."""

    begun: ClassVar[threading.Event]
    proceed: ClassVar[threading.Event]
    endless: ClassVar[bool]

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        takes_long = sql.startswith(("PRAGMA quick_check", "VACUUM"))
        if takes_long and threading.current_thread().name.startswith("database-"):
            self.begun.set()
            if self.endless:
                return super().execute(ENDLESS)
            assert self.proceed.wait(10)
        return super().execute(sql, parameters)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> type[Gate]:
    Gate.begun, Gate.proceed, Gate.endless = threading.Event(), threading.Event(), False
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Gate))
    return Gate


async def begun_check(opened: Database, gate: type[Gate]) -> asyncio.Task[None]:
    checking = asyncio.create_task(opened.check())
    assert await asyncio.to_thread(gate.begun.wait, 10)
    return checking


def checked_first(caplog: pytest.LogCaptureFixture) -> bool:
    was_first = LATER not in caplog.messages
    caplog.clear()
    return was_first


async def test_a_large_database_is_checked_after_the_start_if_the_last_check_ended_well(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await make_large(path)
    await start(path)
    assert checked_first(caplog), "its first check as a large one"
    for _ in range(2):
        assert await start(path) is None
        assert any(line.startswith(WHOLE) for line in caplog.messages)
        assert not checked_first(caplog)


async def test_damage_found_after_the_start_makes_the_next_start_refuse(path: Path) -> None:
    await make_large(path)
    await start(path)
    damage(path)
    assert "overflow list" in str(await start(path))
    for _ in range(2):
        with pytest.raises(DatabaseUnusable, match="is damaged"):
            await start(path)


async def test_no_two_starts_in_a_row_go_without_a_whole_check(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    await make_large(path)
    await start(path)
    caplog.clear()
    await start(path, check=False)
    assert not checked_first(caplog)
    await start(path, check=False)
    assert checked_first(caplog), "the last one ended before its check"
    damage(path)
    await start(path, check=False)
    with pytest.raises(DatabaseUnusable, match="is damaged"):
        await start(path)


async def test_an_older_copy_is_checked_before_it_is_used(path: Path) -> None:
    await make_large(path)
    await start(path)
    copy = path.read_bytes()
    await start(path)
    path.write_bytes(copy)
    damage(path)
    with pytest.raises(DatabaseUnusable, match="is damaged"):
        await start(path)


async def test_an_upgrade_checks_before_it_migrates(path: Path) -> None:
    await make_large(path)
    await start(path)
    damage(path)
    with sqlite3.connect(path) as raw:
        [[version]] = raw.execute("PRAGMA user_version")
        raw.execute(f"PRAGMA user_version = {version - 1}")
    raw.close()
    with pytest.raises(DatabaseUnusable, match="is damaged"):
        await start(path)


async def test_while_the_check_runs_the_file_stays_as_it_is_and_everything_else_goes_on(
    path: Path, gate: type[Gate]
) -> None:
    await make_large(path)
    await start(path)
    async with opening.opened(path) as opened:
        checking = await begun_check(opened, gate)
        before = path.read_bytes()
        for number in range(20):  # more than what moves the write-ahead log into the file by itself
            await opened.run("INSERT INTO facts VALUES (?, printf('%.*c', 1000000, 'x'))", (str(number),))
        emptied = [asyncio.create_task(opened.checkpoint()), asyncio.create_task(opened.compact())]
        await opened.run("SELECT 1")
        assert path.read_bytes() == before
        assert not any(task.done() for task in emptied)
        gate.proceed.set()
        await asyncio.gather(checking, *emptied)
        assert opened.damage is None
        assert path.stat().st_size > len(before)
        assert (await opened.run("PRAGMA wal_autocheckpoint"))[0][0] == 1000


async def test_another_instance_is_still_locked_out_after_the_check(path: Path) -> None:
    script = (
        "import sqlite3, sys\n"
        "try: sqlite3.connect(sys.argv[1], timeout=0.1).execute('SELECT * FROM sqlite_schema').fetchall()\n"
        "except sqlite3.OperationalError as trouble: print(trouble)\n"
    )
    await make_large(path)
    await start(path)
    async with opening.opened(path) as opened:
        await opened.check()
        command = [sys.executable, "-c", script, str(path)]
        child = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=30, check=True)
    assert child.stdout.strip() == "database is locked"


async def test_a_stop_does_not_wait_for_the_check_and_the_next_start_does_it_first(
    path: Path, caplog: pytest.LogCaptureFixture, gate: type[Gate]
) -> None:
    gate.endless = True
    await make_large(path)
    await start(path)
    async with opening.opened(path) as opened:
        checking = await begun_check(opened, gate)
        checking.cancel()
        await asyncio.wait([checking], timeout=10)
        assert checking.cancelled()
        assert not any(thread.name.startswith("database-check") for thread in threading.enumerate())
        await opened.checkpoint()
    caplog.clear()
    await start(path)
    assert checked_first(caplog)


async def test_damage_that_a_running_bot_finds_is_paged_and_only_new_requests_are_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "pikzels-bot.sqlite3"
    await make_large(path)
    await start(path)
    damage(path)
    async with running(tmp_path, monkeypatch) as live:
        live.cdn.released.clear()
        begun = await live.thumbnail()
        await begun.wait(lambda i: i.message is not None, 10)
        for _ in range(2):
            await live.app.check()
        pages = [line for line in caplog.messages if "the database is damaged (" in line]
        refused = await live.thumbnail()
        await refused.wait(lambda i: i.message is not None, 10)
        live.cdn.released.set()
        await begun.wait(lambda i: i.message is not None and bool(i.message.attachments), 20)
    assert len(pages) == 1
    assert "new requests are rejected" in pages[0]
    assert refused.message is not None
    assert refused.message.content.startswith("The bot can't accept requests at the moment")
    with pytest.raises(DatabaseUnusable, match="is damaged"):
        await start(path)


# --- the command line ------------------------------------------------------------------------------------------------


def verify(path: Path) -> object:
    return offline.examined(path)


def back_up(path: Path) -> object:
    return offline.back_up(path, folder=path.with_name("backups"), now=NOON)


@pytest.mark.parametrize("command", [verify, back_up])
def test_ctrl_c_ends_a_long_statement_at_once(command: Callable[[Path], object], path: Path, gate: type[Gate]) -> None:
    asyncio.run(start(path))
    gate.endless = True

    def interrupt() -> None:
        assert gate.begun.wait(10)
        os.kill(os.getpid(), signal.SIGINT)

    interrupting = threading.Thread(target=interrupt)
    handled = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        interrupting.start()
        with pytest.raises(KeyboardInterrupt):
            command(path)
    finally:
        signal.signal(signal.SIGINT, handled)
        interrupting.join()
    assert list(path.parent.glob("backups/*")) == []
