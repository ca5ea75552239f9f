"""The one SQLite connection, which is written to in grouped transactions."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from contextlib import suppress
from contextvars import Context
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from bot.domain.errors import StorageUnavailable
from bot.domain.models import require
from bot.storage import integrity
from bot.storage.marker import position_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import aiosqlite

    from bot.storage.marker import Marker

    Parameters: TypeAlias = Sequence[Any] | Mapping[str, Any]

log = logging.getLogger(__name__)

T = TypeVar("T")
Row = sqlite3.Row

FILE = "pikzels-bot.sqlite3"  # in the folder of the settings
_BATCH = 256  # transactions in one commit: limits how long the first waits for the last

_TRUNCATE_WAL = "PRAGMA wal_checkpoint(TRUNCATE)"
_LEAVE_FILE = "PRAGMA wal_autocheckpoint = 0"
_CHANGE_FILE = "PRAGMA wal_autocheckpoint = 1000"


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
            await self.run(integrity.RECORD_CHECK)
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
                await asyncio.to_thread(self._marker.write, await position_of(self._connection))

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


async def _leave_file(connection: aiosqlite.Connection) -> None:
    """Move the write-ahead log into the database, and nothing more from then on."""
    await connection.execute_fetchall(_LEAVE_FILE)
    [[is_busy, *_]] = await connection.execute_fetchall(_TRUNCATE_WAL)
    if is_busy:
        raise StorageUnavailable("the write-ahead log is in use")
