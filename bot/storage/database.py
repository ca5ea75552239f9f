"""The one SQLite connection: opened exclusively, verified, migrated, and written to in grouped transactions."""

from __future__ import annotations

import asyncio
import logging
import secrets
import sqlite3
from contextlib import asynccontextmanager, suppress
from contextvars import Context
from functools import partial
from importlib import resources
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import aiosqlite

from bot.domain.errors import DatabaseUnusable, StorageUnavailable
from bot.domain.models import require
from bot.storage import integrity
from bot.storage.marker import Marker, Position, is_older
from bot.storage.pseudonyms import member_key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from importlib.abc import Traversable
    from pathlib import Path

    Parameters: TypeAlias = Sequence[Any] | Mapping[str, Any]

log = logging.getLogger(__name__)

T = TypeVar("T")
Row = sqlite3.Row

FILE = "pikzels-bot.sqlite3"  # in the folder of the settings
_BATCH = 256  # transactions in one commit: limits how long the first waits for the last

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

_LEAVE_FILE = "PRAGMA wal_autocheckpoint = 0"
_CHANGE_FILE = "PRAGMA wal_autocheckpoint = 1000"

_RECORD_START = "INSERT OR REPLACE INTO facts (name, value) VALUES ('start', ?), ('marker', ?)"
_RECORD_CHECK = "INSERT OR REPLACE INTO facts (name, value) SELECT 'checked', value FROM facts WHERE name = 'start'"
_POSITION = """
    SELECT
        (SELECT COALESCE(MAX(id), 0) FROM entries),
        COALESCE((SELECT value FROM facts WHERE name = 'start'), ''),
        COALESCE((SELECT value FROM facts WHERE name = 'marker'), '')
"""


class Transaction:
    """Runs the statements of one transaction, on the database's thread."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @property
    def is_open(self) -> bool:
        return self._connection.in_transaction

    def run(self, sql: str, parameters: Parameters = ()) -> list[Row]:
        """Run one statement to its end and return its rows; raises `sqlite3.Error`."""
        return self._connection.execute(sql, parameters).fetchall()


class Database:
    """Serializes every access. What waits together is committed together, in one trip to the database's thread: one
    flush to disk for many callers.

    A caller that is cancelled leaves nothing half done: a transaction runs on that thread from BEGIN to COMMIT, where
    no cancellation reaches it.
    """

    def __init__(
        self,
        connection: aiosqlite.Connection,
        raw: sqlite3.Connection,
        *,
        salt: str,
        marker: Marker | None = None,
        restored: bool = False,
        path: Path | None = None,
        is_checked: bool = True,
    ) -> None:
        self._path = path
        self.salt = salt  # of the pseudonyms in this database
        self.restored = restored  # an older copy replaced the database
        self.damage: str | None = None  # what the check found after the start
        self._is_checked = is_checked  # the whole file, since the start
        self._file = asyncio.Lock()  # held while the file must not change, or is moved into
        self._marker = marker
        self._connection = connection
        self._transaction = Transaction(raw)
        self._waiting: list[tuple[Callable[[], Any], asyncio.Future[Any]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def run(self, sql: str, parameters: Parameters = ()) -> list[Row]:
        """Run one statement; returns after it is on disk. Raises `StorageUnavailable`, `sqlite3.Error`."""
        return await self._enqueue(partial(self._transaction.run, sql, parameters))

    async def write(self, steps: Callable[[Transaction], T]) -> T:
        """Several statements, all or nothing; returns after they are on disk. What `steps` raises undoes them.

        `steps` runs on the database's thread, with others' transactions waiting: statements and plain values only.
        """
        return await self._enqueue(partial(self._undoable, steps))

    async def checkpoint(self) -> None:
        """Move the write-ahead log into the database and truncate it: what was erased is then gone from the disk.
        Then record in the marker how far the database is.
        """
        await self.drained()
        async with self._file:
            with suppress(sqlite3.Error):  # on a full disk it stays as it is
                await self._connection.execute_fetchall(_TRUNCATE_WAL)
        await self.mark()

    async def check(self) -> None:
        """Look for damage in a large database, which a start does not wait for; sets `damage`. Call it after the start,
        and now and then: where it could not be done, it is done again. Raises `StorageUnavailable`, `sqlite3.Error`.

        The file does not change meanwhile: what is written stays in the write-ahead log. A cancellation stops it.
        """
        if self._is_checked:
            return
        start = perf_counter()
        async with self._file:
            try:
                await _leave_file(self._connection)
                self.damage = await integrity.damage_in(self.path)
            finally:
                await self._connection.execute_fetchall(_CHANGE_FILE)
        self._is_checked = True
        if self.damage is None:
            await self.run(_RECORD_CHECK)
            log.info("the database is whole: it was checked in %.1f s, while the bot ran", perf_counter() - start)

    async def copy(self, target: Path) -> None:
        """Write the database as it is now into the empty file `target`; flushing it is up to the caller.

        Others read and write meanwhile, as during a check: what is written stays in the write-ahead log. A cancellation
        stops it. Raises `StorageUnavailable`, `sqlite3.Error`.
        """
        async with self._file:
            try:
                await _leave_file(self._connection)
                await integrity.in_thread(self.path, partial(integrity.copy, target=target))
            finally:
                await self._connection.execute_fetchall(_CHANGE_FILE)

    @property
    def path(self) -> Path:
        """The file; a database in memory has none."""
        return require(self._path)

    @property
    def changes(self) -> int:
        """How many rows have been changed since the start."""
        return self._connection.total_changes

    async def compact(self) -> None:
        """Write the database anew, and the write-ahead log with it. `secure_delete` alone is not enough to erase
        something: when pages of a tree are balanced, copies of rows stay in the gaps between the others.

        Nothing else is read or written meanwhile, for about a second per 50 MB. Raises `StorageUnavailable`.
        """
        await self.drained()
        async with self._file:
            try:
                await self._connection.execute_fetchall("VACUUM")
            except sqlite3.Error as error:
                raise StorageUnavailable(str(error)) from error
        await self.checkpoint()

    async def mark(self) -> None:
        """Record in the marker how far the database is, as far as both can be read and written."""
        if self._marker is not None:
            with suppress(sqlite3.Error):
                await asyncio.to_thread(self._marker.write, await _position(self._connection))

    async def drained(self) -> None:
        """Wait until nothing is being written."""
        while self._writer is not None and not self._writer.done():
            await asyncio.wait([self._writer])

    async def _enqueue(self, work: Callable[[], T]) -> T:
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((work, future))
        if self._writer is None or self._writer.done():
            # In a context of its own: it works for many callers, so its log lines must not have the first one's job id.
            self._writer = asyncio.create_task(self._write_all(), name="database-writer", context=Context())
        return await future

    async def _write_all(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:_BATCH], self._waiting[_BATCH:]
            works = [work for work, _ in batch]
            try:
                # aiosqlite has no public way to run more than one statement in one trip to its thread.
                outcomes = await self._connection._execute(self._commit, works)  # type: ignore[no-untyped-call]  # noqa: SLF001
            except BaseException:  # the loop is being torn down: no caller may wait forever
                for _, future in batch:
                    future.cancel()
                raise
            for (_, future), outcome in zip(batch, outcomes, strict=True):
                if future.done():  # its caller was cancelled
                    continue
                if isinstance(outcome, Exception):
                    future.set_exception(outcome)
                else:
                    future.set_result(outcome)

    def _commit(self, works: Sequence[Callable[[], Any]]) -> Sequence[Any]:
        """Run every piece of work in one transaction; returns the result or the exception of each.

        If they can't be committed together, each is tried alone: callers that only read must not suffer.
        """
        transaction = self._transaction
        try:
            transaction.run("BEGIN")  # the lock is held since the start
            outcomes = []
            for work in works:
                outcomes.append(_outcome(work))
                if not transaction.is_open or isinstance(outcomes[-1], sqlite3.OperationalError):
                    raise _undone(outcomes[-1])  # SQLite rolls back everything on a full disk
            transaction.run("COMMIT")
        except sqlite3.Error as error:
            if transaction.is_open:
                with suppress(sqlite3.Error):
                    transaction.run("ROLLBACK")
            if len(works) > 1:
                return [self._commit([work])[0] for work in works]
            return [StorageUnavailable(str(error))]
        return outcomes

    def _undoable(self, steps: Callable[[Transaction], T]) -> T:
        transaction = self._transaction
        transaction.run("SAVEPOINT steps")
        try:
            result = steps(transaction)
        except Exception:
            if transaction.is_open:
                transaction.run("ROLLBACK TO steps")
                transaction.run("RELEASE steps")
            raise
        transaction.run("RELEASE steps")
        return result


def _undone(outcome: Any) -> sqlite3.Error:
    return outcome if isinstance(outcome, sqlite3.Error) else sqlite3.OperationalError("SQLite rolled back")


def _outcome(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except Exception as error:  # noqa: BLE001 - handed to the caller it belongs to
        return error


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


async def _position(connection: aiosqlite.Connection) -> Position:
    [[last, start, found]] = await connection.execute_fetchall(_POSITION)
    return Position(last, start, found)


async def _record_start(connection: aiosqlite.Connection, found: str, *, is_checked: bool) -> bool:
    """Give this start an id in the database, and say whether it has been checked; returns whether the database is older
    than the marker `found`.
    """
    restored = is_older(await _position(connection), found)
    try:
        await connection.execute_fetchall(_RECORD_START, (secrets.token_hex(8), found))
        if is_checked and await integrity.is_large(connection):
            await connection.execute_fetchall(_RECORD_CHECK)
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
    await _migrate(connection)
    with suppress(sqlite3.OperationalError):  # on a full disk the log stays as it is, until the next checkpoint
        await connection.execute_fetchall(_TRUNCATE_WAL)  # after a kill it still contains what was erased
    return is_checked


async def _can_be_checked_later(connection: aiosqlite.Connection, found: str) -> bool:
    """Whether it takes long, and nothing calls for it now: an upgrade, a copy in the place of the database, or a last
    start that did not check it to its end.
    """
    [[version]] = await connection.execute_fetchall("PRAGMA user_version")
    return (
        version == newest_schema()
        and await integrity.is_large(connection)
        and await integrity.last_ended_well(connection)
        and not is_older(await _position(connection), found)
    )


async def _leave_file(connection: aiosqlite.Connection) -> None:
    """Move the write-ahead log into the database, and nothing more from then on."""
    await connection.execute_fetchall(_LEAVE_FILE)
    [[is_busy, *_]] = await connection.execute_fetchall(_TRUNCATE_WAL)
    if is_busy:
        raise StorageUnavailable("the write-ahead log is in use")


async def _migrate(connection: aiosqlite.Connection) -> None:
    """Apply the numbered files that this database has not seen, each in one transaction with its number."""
    scripts = _scripts()
    [[version]] = await connection.execute_fetchall("PRAGMA user_version")
    if version > max(scripts):
        raise DatabaseUnusable(f"was written by a newer version of this program (schema {version})")
    for number in sorted(number for number in scripts if number > version):
        script = scripts[number].read_text("utf-8")
        try:
            await connection.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {number};\nCOMMIT;")
        except sqlite3.Error:
            await connection.rollback()  # `executescript` would commit the half of it before a second try
            raise


def newest_schema() -> int:
    """The version of the schema that this program writes."""
    return max(_scripts())


def _scripts() -> dict[int, Traversable]:
    files = resources.files("bot.storage").joinpath("migrations", "sqlite").iterdir()
    return {int(file.name[:4]): file for file in files if file.name.endswith(".sql")}
