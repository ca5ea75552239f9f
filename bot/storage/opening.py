"""Opens the database: exclusively, verified, and migrated."""

from __future__ import annotations

import asyncio
import logging
import secrets
import sqlite3
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import aiosqlite

from bot.domain.errors import DatabaseUnusable
from bot.storage import integrity, schema
from bot.storage.database import Database
from bot.storage.marker import Marker, is_older, position_of
from bot.storage.pseudonyms import member_key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

log = logging.getLogger(__name__)

# locking_mode must precede journal_mode: then there is no shared-memory file, and a second instance is locked out.
_PRAGMAS = (
    "PRAGMA locking_mode = EXCLUSIVE",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA fullfsync = ON",  # on macOS, a plain fsync stops at the drive's cache
    "PRAGMA checkpoint_fullfsync = ON",
    "PRAGMA foreign_keys = ON",
    "PRAGMA trusted_schema = OFF",
    "PRAGMA secure_delete = ON",  # an erased interaction token must not stay in a free page
    "PRAGMA cell_size_check = ON",
    "PRAGMA journal_size_limit = 67108864",
    "PRAGMA temp_store = MEMORY",
)

_TRUNCATE_WAL = "PRAGMA wal_checkpoint(TRUNCATE)"
_RECORD_START = "INSERT OR REPLACE INTO facts (name, value) VALUES ('start', ?), ('marker', ?)"


def _no_reserve() -> None:
    """There is no room to make."""


@asynccontextmanager
async def opened(path: Path, *, make_room: Callable[[], None] = _no_reserve) -> AsyncIterator[Database]:
    """Open, lock, verify and migrate the database at `path`; raises `DatabaseUnusable` and leaves nothing open.

    `make_room` is called if the disk has no room for what must be written before the bot can start.
    """
    marker = Marker(path)
    marker.check_not_missing()
    raw: list[sqlite3.Connection] = []

    def connect() -> sqlite3.Connection:
        raw.append(sqlite3.connect(path, isolation_level=None, timeout=1.0))
        return raw[0]

    connection = aiosqlite.Connection(connect, iter_chunk_size=64)
    try:
        await connection
    except sqlite3.Error as error:
        # aiosqlite only tells its thread to stop: one that outlives the event loop ends with a traceback.
        await asyncio.to_thread(connection._thread.join)  # noqa: SLF001 - it has no public way to wait for it
        raise DatabaseUnusable(f"cannot be opened: {error}") from error
    try:
        is_checked = await _prepare(connection, make_room, marker.read())
        restored = await _record_start(connection, marker.read(), is_checked=is_checked)
        salt = await _salt(connection)
        if not is_checked:
            log.info("the database is large: it is checked for damage after the start")
        database = Database(
            connection, raw[0], salt=salt, marker=marker, restored=restored, path=path, is_checked=is_checked
        )
        await database.mark()
        try:
            yield database
        finally:
            await database.drained()
            await database.mark()
    finally:
        await connection.close()


async def _salt(connection: aiosqlite.Connection) -> str:
    [[salt]] = await connection.execute_fetchall("SELECT salt FROM pseudonyms")
    return str(salt)


async def _record_start(connection: aiosqlite.Connection, found: str, *, is_checked: bool) -> bool:
    """Give this start an id in the database, and say whether it has been checked; returns whether the database is older
    than the marker `found`.
    """
    restored = is_older(await position_of(connection), found)
    try:
        await connection.execute_fetchall(_RECORD_START, (secrets.token_hex(8), found))
        if is_checked and await integrity.is_large(connection):
            await connection.execute_fetchall(integrity.RECORD_CHECK)
    except sqlite3.OperationalError:  # on a full disk the id of the last start stays
        if not is_checked:  # and the next start would believe that one
            await integrity.check(connection)
    return restored


async def _prepare(connection: aiosqlite.Connection, make_room: Callable[[], None], found: str) -> bool:
    """Returns whether the whole database has been checked; if not, it is to be done later."""
    connection.row_factory = sqlite3.Row
    try:
        try:
            return await _verify_and_migrate(connection, found)
        except sqlite3.OperationalError as error:
            if not _lacks_room(error):
                raise
            make_room()
            return await _verify_and_migrate(connection, found)
    except sqlite3.Error as error:
        locked = "locked" in str(error)
        raise DatabaseUnusable("is in use by another instance" if locked else f"cannot be used: {error}") from error


def _lacks_room(error: sqlite3.OperationalError) -> bool:
    """Whether room may help: a disk quota is reported as an I/O error."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)


async def _verify_and_migrate(connection: aiosqlite.Connection, found: str) -> bool:
    for pragma in _PRAGMAS:
        await connection.execute_fetchall(pragma)
    await connection.create_function("member_key", 2, member_key, deterministic=True)  # for the migrations
    await connection.execute_fetchall("BEGIN IMMEDIATE")  # take the lock now, not at the first write
    await connection.execute_fetchall("COMMIT")
    is_checked = not await _can_be_checked_later(connection, found)
    await (integrity.check if is_checked else integrity.glance)(connection)
    await schema.migrate(connection)
    with suppress(sqlite3.OperationalError):  # on a full disk the log stays as it is, until the next checkpoint
        await connection.execute_fetchall(_TRUNCATE_WAL)  # after a kill it still contains what was erased
    return is_checked


async def _can_be_checked_later(connection: aiosqlite.Connection, found: str) -> bool:
    """Whether it takes long, and nothing calls for it now: an upgrade, a copy in the place of the database, or a last
    start that did not check it to its end.
    """
    [[version]] = await connection.execute_fetchall("PRAGMA user_version")
    return (
        version == schema.newest_schema()
        and await integrity.is_large(connection)
        and await integrity.last_ended_well(connection)
        and not is_older(await position_of(connection), found)
    )
