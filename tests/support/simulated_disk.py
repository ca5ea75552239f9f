"""The disk of a bot on virtual time: the spool and a database with real SQL. Both may be full or unavailable."""

from __future__ import annotations

import asyncio
import errno
import sqlite3
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from bot.domain.errors import PictureUnusable
from bot.domain.models import CLAIM_LIFE, Picture
from bot.storage.journal import Journal
from tests.support.simulated_world import BAD, Died

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Sequence
    from datetime import datetime
    from pathlib import Path

    from bot.domain.models import Job
    from bot.storage.journal import Record
    from tests.support.simulated_world import Process, World

T = TypeVar("T")


class SpoolFile:
    """A file in the spool, with the methods that `bot.storage.job_rows` and `bot.jobs.lifecycle` use."""

    __slots__ = ("_files", "name")

    def __init__(self, files: dict[str, datetime], name: str) -> None:
        self._files = files
        self.name = name

    def exists(self) -> bool:
        return self.name in self._files


class SpoolFolder:
    """Implements one operation of a path: it returns the file with a given name."""

    def __init__(self, world: World) -> None:
        self._files = world.files

    def __truediv__(self, name: str) -> SpoolFile:
        return SpoolFile(self._files, name)


class Spool:
    """Behaves like `bot.images.output_spool`, but stores only the names of the files."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._world = process.world

    async def write(self, job: Job, pieces: AsyncIterable[bytes]) -> Picture:
        partial, final = f"{job.id}.part", f"{job.id}.png"
        try:
            self._touch(partial)
            async for piece in pieces:
                self._touch(partial)
                if piece == BAD:
                    raise PictureUnusable("this is not a picture")
            await self._process.wait(self._world.seconds(0.02), "writing")
        except BaseException:
            if not self._process.dead:
                self._world.files.pop(partial, None)
            raise
        self._world.files[final] = self._world.files.pop(partial)
        return Picture(SpoolFolder(self._world) / final, "PNG", 1280, 720, 1000)  # type: ignore[arg-type]  # a simulated path

    async def hold_in_memory(self, job: Job, pieces: AsyncIterable[bytes]) -> Picture:
        content = b"".join([piece async for piece in pieces])
        if content == BAD:
            raise PictureUnusable("this is not a picture")
        if self._world.happens("memory full"):
            raise MemoryError
        held = SpoolFolder(self._world) / job.id
        return Picture(held, "PNG", 1280, 720, 1000, content=content)  # type: ignore[arg-type]  # a simulated path

    def _touch(self, name: str) -> None:
        self._process.reach("writing")
        if self._world.is_down("spool full") or self._world.happens("spool error"):
            raise OSError(errno.ENOSPC, "full")
        self._world.files[name] = self._world.clock()

    async def find(self, job: Job) -> Picture | None:
        await self._process.wait(0, "finding")
        final = f"{job.id}.png"
        if self._world.happens("spool file lost"):  # it was not flushed when the power failed
            self._world.files.pop(final, None)
        if final not in self._world.files:
            return None
        return Picture(SpoolFolder(self._world) / final, "PNG", 1280, 720, 1000)  # type: ignore[arg-type]  # a simulated path

    async def flush(self, picture: Picture) -> None:
        await self._process.wait(0, "flushing")
        if picture.path.name not in self._world.files:
            raise FileNotFoundError(picture.path.name)

    async def remove(self, job: Job) -> None:
        await self._process.wait(0, "removing")
        for suffix in (".part", ".png"):
            self._world.files.pop(job.id + suffix, None)

    async def sweep(self, *, now: datetime, needed: frozenset[str]) -> int:
        await self._process.wait(0, "sweeping")
        old = [name for name, at in self._world.files.items() if self._is_expired(name, now - at, needed)]
        for name in old:
            del self._world.files[name]
        return len(old)

    def _is_expired(self, name: str, age: timedelta, needed: frozenset[str]) -> bool:
        job, _, suffix = name.partition(".")
        return job not in needed and age > (timedelta(hours=1) if suffix == "part" else CLAIM_LIFE)


class DatabaseThread:
    """Replaces aiosqlite's thread."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def _execute(self, commit: Callable[[Sequence[Any]], T], batch: Sequence[Any]) -> T:
        world = self._process.world
        await asyncio.sleep(world.seconds(0.1) if world.happens("commit slow") else 0)
        self._process.reach("commit")
        world.maybe_break_database()
        try:
            return commit(batch)
        except Died:
            world.raw.rollback()
            raise


class Connection:
    """A connection to a database whose disk may be full or unavailable.

    It calls `on_entries` after each commit that contains ledger entries.
    """

    def __init__(self, process: Process, on_entries: Callable[[], None]) -> None:
        self._process = process
        self._world = process.world
        self._on_entries = on_entries
        self._wrote = self._wrote_entries = False

    @property
    def in_transaction(self) -> bool:
        return self._world.raw.in_transaction

    def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
        if self._world.is_down("database unavailable") and sql != "ROLLBACK":
            raise sqlite3.OperationalError("disk I/O error")
        if sql.startswith("BEGIN"):
            self._wrote = self._wrote_entries = False
        if sql == "COMMIT":
            return self._commit()
        if sql.startswith(("UPDATE", "\n    INSERT")):
            self._wrote = True
            self._wrote_entries = self._wrote_entries or "INTO entries" in sql
            self._raise_if_full()
        return self._world.raw.execute(sql, parameters)

    def _raise_if_full(self) -> None:
        """SQLite may report a full disk at any statement, and may roll back automatically."""
        chance = self._world.chance
        if self._is_full() and chance.random() < 0.6:
            if chance.random() < 0.5:
                self._world.raw.rollback()
            raise sqlite3.OperationalError("database or disk is full")

    def _is_full(self) -> bool:
        if not self._world.is_down("database full"):
            return False
        self._world.writes_left -= 1
        return self._world.writes_left < 0

    def _commit(self) -> sqlite3.Cursor:
        if not self._wrote:
            return self._world.raw.execute("COMMIT")
        if self._is_full():
            raise sqlite3.OperationalError("database or disk is full")
        self._process.reach("before commit")
        done = self._world.raw.execute("COMMIT")
        if self._wrote_entries:
            self._on_entries()
        self._process.reach("after commit")
        return done


class CrashableJournal(Journal):
    """The real journal. The process may also crash before or after each write."""

    def __init__(self, path: Path, process: Process, *, size: int) -> None:
        super().__init__(path, size=size)
        self._process = process

    def append(self, record: Record) -> None:
        world = self._process.world
        self._process.reach("before the journal write")
        try:
            self._append(record)
        except OSError:
            world.counts["journal write failed"] += 1
            world.journal_failed_at = world.loop.time()
            raise
        world.note("journal", None, record["step"])
        world.counts["journaled"] += 1
        self._process.reach("after the journal write")

    def _append(self, record: Record) -> None:
        if self._process.world.happens("journal fails"):
            raise OSError(errno.EIO, "journal")
        super().append(record)

    def clear(self) -> None:
        self._process.reach("before the journal is cleared")
        super().clear()
        self._process.reach("after the journal is cleared")


class DiskReserve:
    """Freeing it allows a few more writes, or none."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.is_allocated = False

    def allocate(self) -> bool:
        self._process.reach("allocating the reserve")
        self.is_allocated = self.is_allocated or not self._process.world.is_down("database full")
        return self.is_allocated

    def free(self) -> None:
        self._process.reach("freeing the reserve")
        if self.is_allocated:
            self._process.world.writes_left = self._process.world.chance.choice((0, 0, 3, 30))
        self.is_allocated = False
