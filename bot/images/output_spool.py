"""Outputs on disk until they are delivered: written as they stream in, capped, and expiring."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from bot.domain.models import CLAIM_LIFE
from bot.images import folders, inspection
from bot.images.incoming import IncomingFile, to_its_end

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Collection
    from datetime import datetime
    from pathlib import Path

    from bot.domain.models import Job, Picture

CAP_BYTES = 512 * 1024 * 1024
HELD_BYTES = 64 * 1024 * 1024  # in memory, while the disk is full
_SUFFIXES = (folders.PARTIAL, ".png", ".jpg", ".webp")  # of every file that a job can have here


class OutputSpool:
    """The folder of finished images. A file under its final name is whole and flushed to disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._held: Counter[str] = Counter()  # bytes in memory, by job
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def write(self, job: Job, pieces: AsyncIterable[bytes]) -> Picture:
        """Write `pieces` as the job's picture, in one pass for bytes, hash, type and size.

        Raises `PictureUnusable`, `OSError`, and whatever `pieces` raises; nothing is left behind then.
        """
        partial = self.folder / f"{job.id}{folders.PARTIAL}"
        try:
            with partial.open("wb", 0) as file:
                incoming = IncomingFile(file.fileno())
                await incoming.receive(pieces)
                picture = await to_its_end(self._finish, job, partial, file.fileno(), incoming)
                self._held.pop(job.id, None)
                return picture
        except BaseException:
            with suppress(OSError):
                self._remove(job.id)
            raise

    def _finish(self, job: Job, partial: Path, descriptor: int, incoming: IncomingFile) -> Picture:
        incoming.flush()
        os.fsync(descriptor)
        picture = inspection.inspect_to_the_end(partial, sha256=incoming.sha256)
        final = self.folder / (job.id + picture.suffix)
        partial.replace(final)
        _sync_folder(self.folder)
        return replace(picture, path=final)

    async def hold_in_memory(self, job: Job, pieces: AsyncIterable[bytes]) -> Picture:
        """Hold the picture in memory while the disk is full; raises `MemoryError` over the cap,
        `PictureUnusable`, and whatever `pieces` raises.
        """
        held: list[bytes] = []
        self._held[job.id] = 0
        try:
            async for piece in pieces:
                held.append(piece)
                self._held[job.id] += len(piece)
                if self._held.total() > HELD_BYTES:
                    raise MemoryError
            return await asyncio.to_thread(_examined, self.folder / job.id, held)
        except BaseException:
            self._held.pop(job.id, None)
            raise

    async def remove(self, job: Job) -> None:
        """Remove every file of a job that needs none any more."""
        self._held.pop(job.id, None)
        await asyncio.to_thread(self._remove, job.id)

    def _remove(self, job_id: str) -> None:
        for suffix in _SUFFIXES:  # by name: listing the folder costs more with every picture that waits there
            (self.folder / (job_id + suffix)).unlink(missing_ok=True)

    async def remove_all(self, job_ids: Collection[str]) -> None:
        """Remove every file of many jobs, most of which have none."""
        await asyncio.to_thread(self._remove_all, job_ids)

    def _remove_all(self, job_ids: Collection[str]) -> None:
        for path in list(self.folder.iterdir()):
            if path.name.partition(".")[0] in job_ids:
                path.unlink(missing_ok=True)

    async def sweep(self, *, now: datetime, needed: frozenset[str]) -> int:
        """Delete what is abandoned half written, too old, or over the cap, except files of jobs in `needed`; returns
        how many.
        """
        return await asyncio.to_thread(self._sweep, now, needed)

    def _sweep(self, now: datetime, needed: frozenset[str]) -> int:
        life = CLAIM_LIFE.total_seconds()
        deleted, _ = folders.sweep(self.folder, now=now.timestamp(), life_seconds=life, cap=CAP_BYTES, needed=needed)
        return deleted


def _examined(path: Path, pieces: list[bytes]) -> Picture:
    content = b"".join(pieces)
    return inspection.inspect_to_the_end(path, sha256=hashlib.sha256(content).hexdigest(), content=content)


def _sync_folder(folder: Path) -> None:
    """Make a new name durable, if the platform can flush a folder."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
