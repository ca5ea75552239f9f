"""Looks for damage in the database: the whole file before a start, or a glance, and the rest while the bot runs."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

from bot.domain.errors import DatabaseUnusable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import aiosqlite

T = TypeVar("T")

CHECKED_AT_ONCE = 32 * 1024 * 1024  # bytes: the check takes less than a tenth of a second
_CHECK = "PRAGMA quick_check(1)"
_SIZE = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
_SIZE_IN_USE = """
    SELECT (page_count - freelist_count) * page_size
    FROM pragma_page_count(), pragma_freelist_count(), pragma_page_size()
"""
_LAST_CHECK = """
    SELECT (SELECT value FROM facts WHERE name = 'checked') = (SELECT value FROM facts WHERE name = 'start')
"""
RECORD_CHECK = "INSERT OR REPLACE INTO facts (name, value) SELECT 'checked', value FROM facts WHERE name = 'start'"
TABLES = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
FIRST_ROW = 'SELECT * FROM "{}" LIMIT 1'
_LOOK_SECONDS = 0.05  # between two looks for a Ctrl-C
_NICE = 10  # the check takes what the processor has to spare


async def check(connection: aiosqlite.Connection) -> None:
    """Look through the whole database now; raises `DatabaseUnusable` if it is damaged."""
    verdict = [str(row[0]) for row in await connection.execute_fetchall(_CHECK)]
    if verdict != ["ok"]:
        raise DatabaseUnusable(f"is damaged: {verdict[0]}")


async def glance(connection: aiosqlite.Connection) -> None:
    """Read the schema, and one way from the root of every table to a row; raises `sqlite3.DatabaseError`."""
    for [name] in await connection.execute_fetchall(TABLES):
        await connection.execute_fetchall(FIRST_ROW.format(name))


async def is_large(connection: aiosqlite.Connection) -> bool:
    """Whether a check takes so long that it may have to wait until the bot is online."""
    [[size]] = await connection.execute_fetchall(_SIZE)
    return bool(size > CHECKED_AT_ONCE)


async def last_ended_well(connection: aiosqlite.Connection) -> bool:
    """Whether the last start checked the whole database. One that was killed or stopped before, or that found damage,
    did not: so no two starts in a row go without a check.
    """
    [[ended_well]] = await connection.execute_fetchall(_LAST_CHECK)
    return bool(ended_well)


async def damage_in(path: Path) -> str | None:
    """Look through a whole file that does not change meanwhile; returns what is damaged. A cancellation stops it at
    once. Raises `sqlite3.OperationalError` if the file cannot be read to its end.
    """
    return await in_thread(path, damage)


async def in_thread(
    path: Path, work: Callable[[sqlite3.Connection], T], *, connect: Callable[[Path], sqlite3.Connection] | None = None
) -> T:
    """Do `work` in a thread, with a connection of its own to a database that nobody else changes meanwhile. A
    cancellation interrupts its statements.

    SQLite knows all connections of this process, so closing this one does not drop the lock of another.
    """
    with ThreadPoolExecutor(1, "database-check") as executor, closing((connect or unchanging)(path)) as connection:
        working = asyncio.get_running_loop().run_in_executor(executor, _nicely, work, connection)
        try:
            return await asyncio.shield(working)
        finally:
            while not working.done():
                connection.interrupt()  # again: one that comes before the statement has no effect
                await asyncio.wait([working], timeout=0.01)


def interruptible(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    """Do `work` in a thread, so that a Ctrl-C ends its statement: the interpreter could act on one only afterwards. For
    a caller without an event loop; the connection must be usable in other threads.
    """
    with _ctrl_c_noted() as noted, ThreadPoolExecutor(1, "database-work") as executor:
        working = executor.submit(work, connection)
        while not working.done():
            wait([working], timeout=_LOOK_SECONDS)
            if noted.is_set():
                connection.interrupt()
    if noted.is_set():
        raise KeyboardInterrupt
    return working.result()


@contextmanager
def _ctrl_c_noted() -> Iterator[threading.Event]:
    """A Ctrl-C in this block only sets the event: raised just anywhere, it could lose sight of the thread."""
    noted = threading.Event()
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield noted
        return
    signal.signal(signal.SIGINT, lambda *_: noted.set())
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def unchanging(path: Path) -> sqlite3.Connection:
    """A connection that only reads, and takes the file for what it is now: it looks at no lock and no other file."""
    uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    return sqlite3.connect(uri, uri=True, check_same_thread=False, isolation_level=None)


def _nicely(work: Callable[[sqlite3.Connection], T], connection: sqlite3.Connection) -> T:
    if sys.platform == "linux":  # a priority of the thread alone
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
    return work(connection)


def damage(connection: sqlite3.Connection) -> str | None:
    """What is damaged; raises `sqlite3.OperationalError` if the file cannot be read to its end."""
    try:
        [[verdict], *_] = connection.execute(_CHECK).fetchall()
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as error:
        return str(error)
    return None if verdict == "ok" else str(verdict)


def size_of_copy(connection: sqlite3.Connection) -> int:
    """About the bytes of a copy without free pages; raises `sqlite3.Error`."""
    [[size]] = connection.execute(_SIZE_IN_USE).fetchall()
    return int(size)


def copy(connection: sqlite3.Connection, *, target: Path) -> None:
    """Write the database into the empty file `target`, without free pages and gaps; raises `sqlite3.Error`."""
    connection.execute("VACUUM INTO ?", (str(target),))
