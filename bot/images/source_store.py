"""The pictures people gave, kept by the hash of their bytes for making another: capped in bytes and in days."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING

from bot.domain.errors import PictureUnusable
from bot.images import inspection

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Iterator
    from datetime import datetime, timedelta
    from pathlib import Path

_PARTIAL = ".part"
_HALF_WRITTEN = 3600.0  # seconds after which nobody writes it any more
_NO_TIME = 0.0  # at which nothing is too old


class Sources:
    """A folder of files named after their SHA-256. `life` counts from the last use, `cap` is bytes in all; a life of
    zero keeps nothing.
    """

    def __init__(self, folder: Path, *, life: timedelta, cap: int) -> None:
        self._folder = folder
        self._life = life
        self._cap = cap
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._total = sum(status.st_size for status, _ in self._files())

    @property
    def keeps(self) -> bool:
        return self._life.total_seconds() > 0 and self._cap > 0

    async def keep(self, pieces: AsyncIterable[bytes]) -> str:
        """Write `pieces` down; returns their SHA-256. Raises `PictureUnusable` for what is no picture, `OSError`, and
        what `pieces` raises; nothing is left behind then.
        """
        partial = self._folder / f"{secrets.token_hex(8)}{_PARTIAL}"
        digest = hashlib.sha256()
        try:
            with partial.open("wb") as file:
                async for piece in pieces:
                    digest.update(piece)
                    file.write(piece)
            inspection.inspect(partial, sha256="")
            await asyncio.to_thread(self._take_in, partial, digest.hexdigest())
        except BaseException:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise
        return digest.hexdigest()

    def _take_in(self, partial: Path, sha256: str) -> None:
        target = self._folder / sha256
        self._total += 0 if target.exists() else partial.stat().st_size
        partial.replace(target)
        if self._total > self._cap:  # a busy hour is not to fill the disk until the next sweep
            self._sweep(_NO_TIME)

    def has(self, sha256: str) -> bool:
        return (self._folder / sha256).is_file()

    async def data_url(self, sha256: str) -> str | None:
        """The kept picture as the provider takes it in place of an address; None when it is gone. Counts as a use."""
        return await asyncio.to_thread(self._data_url, self._folder / sha256)

    def _data_url(self, path: Path) -> str | None:
        try:
            kind = inspection.inspect(path, sha256="").type.lower()
            content = path.read_bytes()
            os.utime(path)
        except (OSError, PictureUnusable):
            return None
        if hashlib.sha256(content).hexdigest() != path.name:  # a power cut came between its name and its bytes
            return None
        return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"

    async def sweep(self, *, now: datetime) -> int:
        """Remove what was not used for its life, what is half written, then the least recently used over the cap;
        returns how many went.
        """
        return await asyncio.to_thread(self._sweep, now.timestamp())

    def _sweep(self, now: float) -> int:
        total = removed = 0
        for status, path in sorted(self._files(), key=lambda one: one[0].st_mtime, reverse=True):
            half = path.suffix == _PARTIAL
            life = _HALF_WRITTEN if half else self._life.total_seconds()
            if now - status.st_mtime > life or (not half and total + status.st_size > self._cap):
                path.unlink(missing_ok=True)
                removed += 1
            else:
                total += status.st_size
        self._total = total
        return removed

    def _files(self) -> Iterator[tuple[os.stat_result, Path]]:
        for path in self._folder.iterdir():
            with suppress(FileNotFoundError):  # has just got its name, or gone
                yield path.stat(), path
