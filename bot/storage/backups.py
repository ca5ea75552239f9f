"""Backups of the running database: made on a schedule or on request, verified after writing, and rotated."""

from __future__ import annotations

import asyncio
import logging
import re
import shutil
import sqlite3
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from time import perf_counter
from typing import TYPE_CHECKING

from bot.domain.backups import Backup, kept, pause_after, room_needed
from bot.domain.errors import BackupFailed, StorageUnavailable
from bot.storage import files, integrity

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from bot.domain.backups import BackupRules
    from bot.storage.database import Database

log = logging.getLogger(__name__)

FOLDER = "backups"  # in the data folder, unless another one is set
_STEM = "pikzels-bot"
STAMP = "%Y%m%dT%H%M%SZ"
_NAME = re.compile(rf"{_STEM}-(\d{{8}}T\d{{6}}Z)\.sqlite3")
_SOONEST = timedelta(seconds=30)  # after a start, which has other things to do
_GRACE = timedelta(minutes=10)  # a backup that takes long is not overdue yet


class Backups:
    """The backups in `folder`. `settled` waits until the database knows everything, or raises `StorageUnavailable`."""

    def __init__(
        self,
        database: Database,
        *,
        folder: Path,
        rules: BackupRules,
        clock: Callable[[], datetime],
        settled: Callable[[], Awaitable[None]],
    ) -> None:
        self._database = database
        self._folder = folder
        self._rules = rules
        self._clock = clock
        self._settled = settled
        self._making = asyncio.Lock()
        self._found: list[Backup] = []
        self._changes: int | None = None  # the database's when the newest backup was made; None: before this start
        self._fresh_at: datetime | None = None  # when the newest backup was last known to have all that has changed
        self._tried_at = clock()
        self._pause = _SOONEST

    @property
    def is_scheduled(self) -> bool:
        return self._rules.interval > timedelta(0)

    def prepare(self) -> None:
        """At a start: see what is there, and remove what a kill left half written. Raises `OSError`."""
        if self._folder.is_dir():
            for part in self._folder.glob(f"{_STEM}-*{files.PART}"):
                part.unlink()
        self._found = found_in(self._folder)
        if self._found:
            self._fresh_at = self._found[-1].at
            self._pause = max(_SOONEST, self._fresh_at + self._usual_pause(0) - self._tried_at)

    @property
    def size(self) -> int:
        """The bytes of all of them."""
        return sum(backup.size for backup in self._found)

    @property
    def database(self) -> Path:
        """The file of which these are backups."""
        return self._database.path

    def newest(self) -> Backup | None:
        """The newest backup, with the last time at which it was known to have all that had changed. Like every one that
        has its name, it was verified.
        """
        if not self._found:
            return None
        newest = self._found[-1]
        return newest if self._fresh_at is None else replace(newest, at=max(newest.at, self._fresh_at))

    def age(self) -> timedelta | None:
        """For how long the database may have changed without a backup; None without any backup."""
        newest = self.newest()
        return None if newest is None else max(timedelta(0), self._clock() - newest.at)

    def wait(self) -> timedelta:
        """How long until the next one is due."""
        waited = max(timedelta(0), self._clock() - self._tried_at)  # a clock may be set back
        return max(timedelta(0), self._pause - waited)

    @property
    def is_overdue(self) -> bool:
        """Whether several in a row are missing, for whatever reason."""
        age = self.age()
        waited = self._clock() - self._tried_at if age is None else age
        return self.is_scheduled and waited > 3 * max(self._pause, self._rules.interval) + _GRACE

    async def make_if_changed(self) -> Backup | None:
        """Make a backup, unless nothing has changed since the newest one. Raises `BackupFailed`."""
        if self._changes == self._database.changes:
            self._tried_at = self._fresh_at = self._clock()
            return None
        return await self.make()

    async def make(self) -> Backup:
        """Make a backup now, and delete those that are no longer kept. Others read and write meanwhile. Raises
        `BackupFailed`.
        """
        async with self._making:
            start, self._tried_at = perf_counter(), self._clock()
            self._pause = max(_SOONEST, self._rules.interval)
            try:
                await self._settled()
                changes = self._database.changes
                made = await self._write(self._tried_at)
                await asyncio.to_thread(self._rotate)
            except StorageUnavailable as unavailable:
                raise BackupFailed(unavailable.problem) from unavailable
            except sqlite3.Error as error:
                raise BackupFailed(str(error)) from error
            except OSError as error:
                raise BackupFailed(error.strerror or type(error).__name__) from error
            self._changes, self._fresh_at = changes, made.at
            self._pause = max(_SOONEST, self._usual_pause(perf_counter() - start))
        log.info("backed up to %s: %.1f MB in %.1f s", made.path.name, made.size / 1024**2, perf_counter() - start)
        return made

    @asynccontextmanager
    async def unchanging(self) -> AsyncIterator[list[Backup]]:
        """The backups, none of which is made or deleted by anyone else until the end of the block. Raises `OSError`."""
        async with self._making:
            yield await asyncio.to_thread(found_in, self._folder)
            self._found = await asyncio.to_thread(found_in, self._folder)

    async def _write(self, at: datetime) -> Backup:
        from bot.storage import verification  # noqa: PLC0415 - not before the start

        path = self._folder / name_at(at)
        part = path.with_name(path.name + files.PART)
        try:
            await asyncio.to_thread(self._create, part)
            await self._database.copy(part)
            problem = (await integrity.in_thread(part, verification.examine)).problem
            if problem is not None:
                raise BackupFailed(f"the copy is not right: {problem}")
            await asyncio.to_thread(files.publish, part, path)
        except BaseException:
            with suppress(OSError):
                part.unlink()
            raise
        return Backup(path, path.stat().st_size, at)

    def _create(self, part: Path) -> None:
        files.create_folder(self._folder)
        require_room(self._folder, self._database.path.stat().st_size)
        files.create(part)

    def _rotate(self) -> None:
        found = found_in(self._folder)
        staying = kept(found, self._rules)
        for backup in found:
            if backup not in staying:
                backup.path.unlink(missing_ok=True)
        self._found = [backup for backup in found if backup in staying]

    def _usual_pause(self, seconds: float) -> timedelta:
        newest = self.newest()
        return pause_after(self._rules, seconds=seconds, size=0 if newest is None else newest.size)


def name_at(at: datetime) -> str:
    """The name of the backup of that time."""
    return f"{_STEM}-{at.astimezone(UTC):{STAMP}}.sqlite3"


def found_in(folder: Path) -> list[Backup]:
    """The backups in a folder by their names, the oldest first; raises `OSError`."""
    if not folder.is_dir():
        return []
    names = ((path, _NAME.fullmatch(path.name)) for path in folder.iterdir())
    backups = [Backup(path, path.stat().st_size, _time_of(name[1])) for path, name in names if name]
    return sorted(backups, key=lambda backup: backup.at)


def _time_of(stamp: str) -> datetime:
    return datetime.strptime(stamp, STAMP).replace(tzinfo=UTC)


def require_room(folder: Path, size: int) -> None:
    """Raises `BackupFailed` if a copy of `size` bytes would leave too little room on the disk."""
    free, needed = (count // 1024**2 for count in (shutil.disk_usage(folder).free, room_needed(size)))
    if free < needed:
        raise BackupFailed(f"it needs {needed} MB of free disk, and there are {free} MB")
