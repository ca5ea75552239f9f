"""What the command line does with a database that no bot has open: lock it, copy it, look through a copy."""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bot.domain.backups import Step, unwatched
from bot.domain.errors import BackupFailed, DatabaseUnusable
from bot.storage import files, integrity, verification
from bot.storage.backups import name_at, require_room

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from bot.domain.backups import Watch
    from bot.domain.examination import Examination

_WAL = "-wal"


def examined(path: Path, *, watch: Watch = unwatched) -> Examination:
    """Look through a database or a copy of one, with the write-ahead log next to it. It stays as it is. Raises
    `DatabaseUnusable` if a bot has it open, `OSError`.
    """
    path = path.resolve()  # the log is next to the file itself
    if not beside(path, _WAL).exists():
        with watch(Step.CHECK):
            return verification.examined(path)
    if is_in_use(path):
        raise DatabaseUnusable("is in use by a running bot; verify a backup of it")
    with tempfile.TemporaryDirectory(prefix="pikzels-bot-") as folder:
        gathered(path, Path(folder, path.name), watch=watch)
        with watch(Step.CHECK):
            return verification.examined(Path(folder, path.name))


def is_in_use(path: Path) -> bool:
    """Whether a bot has a database open that has a write-ahead log."""
    if not beside(path, _WAL).exists():
        return False
    index = beside(path, "-shm")
    had_index = index.exists()
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=0)) as connection:
            connection.execute("SELECT 1 FROM sqlite_schema").fetchall()
    except sqlite3.Error as error:
        return "locked" in str(error)
    finally:
        if not had_index:
            index.unlink(missing_ok=True)  # SQLite leaves it there
    return False


def back_up(database: Path, *, folder: Path, now: datetime, watch: Watch = unwatched) -> Path:
    """Copy a database that no bot has open into the folder of the backups; returns the verified copy. Raises
    `DatabaseUnusable`, `BackupFailed`, `OSError`.
    """
    with locked(database) as connection:
        files.create_folder(folder)
        require_room(folder, database.stat().st_size + files.size(beside(database, _WAL)))
        path = folder / name_at(now)
        part = beside(path, files.PART)
        try:
            files.create(part)
            with watch(Step.COPY, done=partial(files.size, part), size=integrity.size_of_copy(connection)):
                integrity.interruptible(connection, partial(integrity.copy, target=part))
            with watch(Step.CHECK):
                problem = verification.examined(part).problem
            if problem is not None:
                raise BackupFailed(f"the database is not right: {problem}")
            files.publish(part, path)
        except sqlite3.Error as error:
            raise BackupFailed(str(error)) from error
        finally:
            part.unlink(missing_ok=True)
    return path


@contextmanager
def locked(database: Path) -> Iterator[sqlite3.Connection]:
    """Open a database as the bot does, so that none can start meanwhile. It is not migrated. Raises `DatabaseUnusable`,
    and `sqlite3.DatabaseError` if it is damaged.
    """
    try:
        connection = sqlite3.connect(
            f"{database.absolute().as_uri()}?mode=rw",
            uri=True,
            isolation_level=None,
            timeout=1,
            check_same_thread=False,  # for what can be interrupted
        )
    except sqlite3.OperationalError as error:
        raise DatabaseUnusable(f"cannot be opened: {error}") from error
    with closing(connection):
        try:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            problem = "is in use by a running bot" if "locked" in str(error) else f"cannot be used: {error}"
            raise DatabaseUnusable(problem) from error
        yield connection


def gathered(source: Path, target: Path, *, watch: Watch = unwatched) -> None:
    """Copy a database, with the write-ahead log next to it, to one file; raises `OSError`, `sqlite3.Error`."""
    with watch(Step.COPY, done=partial(files.size, target), size=source.stat().st_size):
        files.copy(source, target)
    if files.size(beside(source, _WAL)):
        files.copy(beside(source, _WAL), beside(target, _WAL))
    with closing(sqlite3.connect(target, isolation_level=None)) as connection:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = DELETE")


def beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)
