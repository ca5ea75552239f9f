"""The disk under a bot on virtual time: its spool, and the database with real SQL; both may be full or gone."""

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
    from tests.support.simulated_world import Life, World

T = TypeVar("T")


class SpoolFile:
    """A file of the spool, as `bot.storage.job_rows` and `bot.jobs.lifecycle` look at it."""

    __slots__ = ("_files", "name")

    def __init__(self, files: dict[str, datetime], name: str) -> None:
        self._files = files
        self.name = name

    def exists(self) -> bool:
        return self.name in self._files


class Folder:
    """Does one thing that a path does: leads to a file."""

    def __init__(self, world: World) -> None:
        self._files = world.files

    def __truediv__(self, name: str) -> SpoolFile:
        return SpoolFile(self._files, name)


class Spool:
    """Does what `bot.images.output_spool` does, on files that are names only."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self._world = life.world

    async def write(self, job: Job, pieces: AsyncIterable[bytes]) -> Picture:
        partial, final = f"{job.id}.part", f"{job.id}.png"
        try:
            self._touch(partial)
            async for piece in pieces:
                self._touch(partial)
                if piece == BAD:
                    raise PictureUnusable("not a picture")
            await self._life.take(self._world.seconds(0.02), "writing")
        except BaseException:
            if not self._life.dead:
                self._world.files.pop(partial, None)
            raise
        self._world.files[final] = self._world.files.pop(partial)
        return Picture(Folder(self._world) / final, "PNG", 1280, 720, 1000, "ab")  # type: ignore[arg-type]  # a path of ours

    async def hold_in_memory(self, job: Job, pieces: AsyncIterable[bytes]) -> Picture:
        content = b"".join([piece async for piece in pieces])
        if content == BAD:
            raise PictureUnusable("not a picture")
        if self._world.happens("memory full"):
            raise MemoryError
        held = Folder(self._world) / job.id
        return Picture(held, "PNG", 1280, 720, 1000, "ab", content=content)  # type: ignore[arg-type]  # a path of ours

    def _touch(self, name: str) -> None:
        self._life.reach("writing")
        if self._world.is_down("spool full") or self._world.happens("spool error"):
            raise OSError(errno.ENOSPC, "full")
        self._world.files[name] = self._world.clock()

    async def remove(self, job: Job) -> None:
        await self._life.take(0, "dropping")
        for suffix in (".part", ".png"):
            self._world.files.pop(job.id + suffix, None)

    async def sweep(self, *, now: datetime, needed: frozenset[str]) -> int:
        await self._life.take(0, "sweeping")
        old = [name for name, at in self._world.files.items() if self._is_over(name, now - at, needed)]
        for name in old:
            del self._world.files[name]
        return len(old)

    def _is_over(self, name: str, age: timedelta, needed: frozenset[str]) -> bool:
        job, _, suffix = name.partition(".")
        return job not in needed and age > (timedelta(hours=1) if suffix == "part" else CLAIM_LIFE)


class Trip:
    """The hop to the database's thread, instead of aiosqlite."""

    def __init__(self, life: Life) -> None:
        self._life = life

    async def _execute(self, commit: Callable[[Sequence[Any]], T], works: Sequence[Any]) -> T:
        world = self._life.world
        await asyncio.sleep(world.seconds(0.1) if world.happens("commit slow") else 0)
        self._life.reach("commit")
        world.maybe_lose_books()
        try:
            return commit(works)
        except Died:
            world.raw.rollback()
            raise


class Disk:
    """A connection to a database whose disk may be full or gone. `on_entries` is called at every commit of entries."""

    def __init__(self, life: Life, on_entries: Callable[[], None]) -> None:
        self._life = life
        self._world = life.world
        self._on_entries = on_entries
        self._wrote = self._entered = False

    @property
    def in_transaction(self) -> bool:
        return self._world.raw.in_transaction

    def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
        if self._world.is_down("books gone") and sql != "ROLLBACK":
            raise sqlite3.OperationalError("disk I/O error")
        if sql.startswith("BEGIN"):
            self._wrote = self._entered = False
        if sql == "COMMIT":
            return self._commit()
        if sql.startswith(("UPDATE", "\n    INSERT")):
            self._wrote = True
            self._entered = self._entered or "INTO entries" in sql
            self._refuse_when_full()
        return self._world.raw.execute(sql, parameters)

    def _refuse_when_full(self) -> None:
        """SQLite may notice at any statement, and may then have rolled back by itself."""
        chance = self._world.chance
        if self._is_full() and chance.random() < 0.6:
            if chance.random() < 0.5:
                self._world.raw.rollback()
            raise sqlite3.OperationalError("database or disk is full")

    def _is_full(self) -> bool:
        if not self._world.is_down("books full"):
            return False
        self._world.room -= 1
        return self._world.room < 0

    def _commit(self) -> sqlite3.Cursor:
        if not self._wrote:
            return self._world.raw.execute("COMMIT")
        if self._is_full():
            raise sqlite3.OperationalError("database or disk is full")
        self._life.reach("before commit")
        done = self._world.raw.execute("COMMIT")
        if self._entered:
            self._on_entries()
        self._life.reach("after commit")
        return done


class MortalJournal(Journal):
    """The real one, with points before and after each write where the process may die."""

    def __init__(self, path: Path, life: Life, *, size: int) -> None:
        super().__init__(path, size=size)
        self._life = life

    def append(self, record: Record) -> None:
        world = self._life.world
        self._life.reach("before the journal")
        try:
            self._append(record)
        except OSError:
            world.counts["journal took nothing"] += 1
            world.journal_failed_at = world.loop.time()
            raise
        world.note("journal", None, record["step"])
        world.counts["journaled"] += 1
        self._life.reach("after the journal")

    def _append(self, record: Record) -> None:
        if self._life.world.happens("journal fails"):
            raise OSError(errno.EIO, "journal")
        super().append(record)

    def clear(self) -> None:
        self._life.reach("before the journal is cleared")
        super().clear()
        self._life.reach("after the journal is cleared")


class DiskReserve:
    """Once freed, it leaves room for some writes, or for none."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self.is_allocated = False

    def allocate(self) -> bool:
        self._life.reach("allocating the reserve")
        self.is_allocated = self.is_allocated or not self._life.world.is_down("books full")
        return self.is_allocated

    def free(self) -> None:
        self._life.reach("freeing the reserve")
        if self.is_allocated:
            self._life.world.room = self._life.world.chance.choice((0, 0, 3, 30))
        self.is_allocated = False
