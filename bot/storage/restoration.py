"""Puts a backup in the place of the database. Whatever interrupts it, there is the one or the other."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import sqlite3
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from bot.domain.backups import Step, unwatched
from bot.domain.errors import BackupFailed
from bot.domain.examination import Loss
from bot.storage import files, integrity, offline, verification
from bot.storage.backups import STAMP, require_room
from bot.storage.marker import Marker, Position
from bot.storage.offline import beside

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bot.domain.backups import Watch
    from bot.domain.examination import Examination

KEPT = timedelta(days=14)  # for so long the database that was replaced stays
_PART = ".restoring"
_KEPT_NAME = re.compile(r"replaced-(\d{8}T\d{6}Z)")

# Not by the ids of entries: a database that was restored before may have given the same ones to other requests.
_LOST = """
    SELECT
        (SELECT COUNT(*) FROM main.entries AS ours WHERE kind = 'hold' AND NOT EXISTS (
            SELECT 1 FROM backup.entries AS theirs
            WHERE theirs.job_id = ours.job_id AND theirs.at = ours.at AND theirs.kind = 'hold'
        )),
        (SELECT COUNT(*) FROM main.entries AS ours WHERE kind = 'charge' AND NOT EXISTS (
            SELECT 1 FROM backup.entries AS theirs
            WHERE theirs.job_id = ours.job_id AND theirs.at = ours.at AND theirs.kind = 'charge'
                AND theirs.kind IN ('charge', 'release')  -- so that the index of both is used
        ))
"""
_POSITION = "SELECT (SELECT COALESCE(MAX(id), 0) FROM entries), (SELECT value FROM facts WHERE name = 'start')"
# A database that names another start than the marker is an older copy to the next start, which acts on it.
_AS_OLDER = "INSERT OR REPLACE INTO facts (name, value) VALUES ('start', ?), ('marker', '')"


@dataclass(slots=True)
class Restoration:
    """A backup that is ready to replace `database`, which may be a link to the `file`. `loss` is None if the database
    cannot be read.
    """

    database: Path
    file: Path
    examination: Examination
    loss: Loss | None
    connection: sqlite3.Connection | None

    def finish(self, *, now: datetime) -> Path | None:
        """Replace the database; returns the folder in which it is kept with what belongs to it. Raises `OSError`,
        `sqlite3.Error`.
        """
        kept = self._keep(now) if self.file.exists() else None
        self._let_marker_name_a_start()
        if self.connection is None or os.name != "posix":  # Windows replaces no file that is open
            beside(self.file, "-wal").unlink(missing_ok=True)
            if self.connection is not None:
                self.connection.close()
        files.publish(beside(self.file, _PART), self.file)
        return kept

    def _keep(self, now: datetime) -> Path:
        """The database under a second name. It is in one file, if it can be, and stays where it is."""
        if self.connection is not None:
            self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self.connection.execute("PRAGMA journal_mode = DELETE")
            self.connection.execute("BEGIN EXCLUSIVE")  # until the end: no bot may start on it
        kept = self.database.with_name(f"replaced-{now.astimezone(UTC):{STAMP}}")
        kept.mkdir(mode=0o700)
        files.give_to_owner(kept)
        try:
            os.link(self.file, kept / self.database.name)
        except OSError:  # not every file system has links, and the file may be on another one
            files.copy(self.file, kept / self.database.name)
        if beside(self.file, "-wal").exists():
            files.copy(beside(self.file, "-wal"), kept / f"{self.database.name}-wal")
        if (journal := self.database.with_name("journal")).exists():
            files.copy(journal, kept / journal.name)
        files.sync_folder(kept)
        return kept

    def _let_marker_name_a_start(self) -> None:
        """Otherwise no start could tell the copy from the database; that one is no older copy of itself."""
        marker = Marker(self.database)
        if not marker.names_a_start():
            last, start = 0, None
            if self.connection is not None:
                with suppress(sqlite3.Error):  # it may be empty
                    [[last, start]] = self.connection.execute(_POSITION).fetchall()
            marker.write(Position(last, start or secrets.token_hex(8), ""))


@contextmanager
def prepared(source: Path, database: Path, *, watch: Watch = unwatched) -> Iterator[Restoration]:
    """Copy the backup `source` next to the database and look through it, while no bot can start. Nothing is replaced
    until `Restoration.finish`. Raises `DatabaseUnusable` if a bot has the database open, `BackupFailed`, `OSError`.
    """
    source, file = source.resolve(), database.resolve()  # links do not have a write-ahead log beside them
    with ExitStack() as stack:
        connection = _locked(file, stack)
        if file.exists() and source.samefile(file):
            raise BackupFailed("it is the database itself")
        if offline.is_in_use(source):
            raise BackupFailed("a running bot uses it; make a backup of it, and restore that one")
        files.create_folder(file.parent)
        require_room(file.parent, source.stat().st_size)
        part = beside(file, _PART)
        stack.callback(remove_parts, file)
        try:
            offline.gathered(source, part, watch=watch)
            with watch(Step.CHECK):
                examination = verification.examined(part)
            if examination.problem is None:
                _make_older(part)
        except sqlite3.Error as error:
            raise BackupFailed(f"it cannot be read ({error})") from error
        with watch(Step.CHECK):
            loss = _loss(connection, part)
        yield Restoration(database, file, examination, loss, connection)


def _locked(database: Path, stack: ExitStack) -> sqlite3.Connection | None:
    """The connection that keeps the database from being used; None if there is none, or if it is beyond reading."""
    if not database.exists():
        return None
    try:
        return stack.enter_context(offline.locked(database))
    except sqlite3.DatabaseError:  # damaged: no bot has it open, for this error would not have come so far
        return None


def _make_older(part: Path) -> None:
    with closing(sqlite3.connect(part, isolation_level=None)) as connection:
        connection.execute(_AS_OLDER, (secrets.token_hex(8),))


def _loss(connection: sqlite3.Connection | None, backup: Path) -> Loss | None:
    if connection is None:
        return None
    with suppress(sqlite3.Error):
        connection.execute("ATTACH ? AS backup", (f"{backup.as_uri()}?mode=ro&immutable=1",))
        try:
            [[jobs, charges]] = integrity.interruptible(connection, lambda ours: ours.execute(_LOST).fetchall())
        finally:
            connection.execute("DETACH backup")
        return Loss(jobs, charges)
    return None


def remove_parts(database: Path) -> None:
    """Remove what an interrupted restoration has left."""
    for ending in ("", "-wal", "-journal", "-shm"):
        beside(database, _PART + ending).unlink(missing_ok=True)


def remove_leftovers(database: Path, *, now: datetime) -> None:
    """Remove databases that were replaced long ago, and second names of one that was not replaced in the end."""
    remove_parts(database.resolve())
    for folder in database.parent.glob("replaced-*"):
        name = _KEPT_NAME.fullmatch(folder.name)
        if name is None:
            continue
        copy, at = folder / database.name, datetime.strptime(name[1], STAMP).replace(tzinfo=UTC)
        is_leftover = not copy.exists() or (database.exists() and copy.samefile(database))
        if is_leftover or at < now - KEPT:
            shutil.rmtree(folder)
            continue
        for part in folder.glob(f"*{files.PART}"):
            part.unlink()
