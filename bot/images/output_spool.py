"""Outputs on disk until they are delivered: written as they stream in, capped, and expiring."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from blake3 import blake3

from bot.domain.errors import PictureUnusable
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
_SHOWN = 16  # digits of its hash in the name of a file


class OutputSpool:
    """The folder of finished images. A file under its final name was whole when it got it; the name has the job's id
    and the start of its hash. It is flushed to disk only when it has to outlast the provider's copy.
    """

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
                picture = await to_its_end(self._finish, job, partial, incoming)
                self._held.pop(job.id, None)
                return picture
        except BaseException:
            with suppress(OSError):
                for path in self._files_of(job.id):
                    path.unlink(missing_ok=True)
            raise

    def _finish(self, job: Job, partial: Path, incoming: IncomingFile) -> Picture:
        incoming.flush()
        picture = inspection.inspect_to_the_end(partial)
        final = self.folder / _name(job, picture, incoming.hash)
        partial.replace(final)
        return replace(picture, path=final)

    async def find(self, job: Job) -> Picture | None:
        """What an earlier process has written as the job's picture, if it is here and whole. After a power cut it may
        not be; then it is removed.
        """
        return await asyncio.to_thread(self._find, job)

    def _find(self, job: Job) -> Picture | None:
        for path in self._files_of(job.id):
            with suppress(OSError, PictureUnusable):
                picture = inspection.inspect_to_the_end(path)
                if path.name == _name(job, picture, blake3(path.read_bytes()).hexdigest()):
                    return picture
            with suppress(OSError):
                path.unlink()
        return None

    async def flush(self, picture: Picture) -> None:
        """Let the file of a picture outlast a power cut; raises `OSError`."""
        await asyncio.to_thread(_flush, picture.path)

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

    def size(self) -> int:
        """The bytes on disk. Reads the folder."""
        return sum(status.st_size for status, _ in folders.files_in(self.folder))

    async def remove(self, job: Job) -> None:
        """Remove every file of a job that needs none any more."""
        self._held.pop(job.id, None)
        await asyncio.to_thread(self._remove, job)

    def _remove(self, job: Job) -> None:
        # By name if it is known: listing the folder takes longer with every picture that waits there.
        for path in self._files_of(job.id) if job.picture is None else [job.picture.path]:
            path.unlink(missing_ok=True)

    def _files_of(self, job_id: str) -> list[Path]:
        return [path for path in self.folder.iterdir() if path.name.partition(".")[0] == job_id]

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
    return inspection.inspect_to_the_end(path, content=b"".join(pieces))


def _name(job: Job, picture: Picture, digest: str) -> str:
    return f"{job.id}.{digest[:_SHOWN]}{picture.suffix}"


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
    with suppress(OSError):  # if the platform can flush a folder
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
