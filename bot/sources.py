"""The pictures people gave, kept by the hash of their bytes for making another: capped in bytes and in days."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING

from bot import pictures
from bot.errors import PictureUnusable

if TYPE_CHECKING:
    from collections.abc import AsyncIterable
    from datetime import datetime, timedelta
    from pathlib import Path


class Sources:
    """A folder of files named after their SHA-256. `life` counts from the last use, `cap` is bytes in all; a life of
    zero keeps nothing.
    """

    def __init__(self, folder: Path, *, life: timedelta, cap: int) -> None:
        self._folder = folder
        self._life = life
        self._cap = cap
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def keeps(self) -> bool:
        return self._life.total_seconds() > 0 and self._cap > 0

    async def keep(self, pieces: AsyncIterable[bytes]) -> str:
        """Write `pieces` down; returns their SHA-256. Raises `PictureUnusable` for what is no picture, `OSError`, and
        what `pieces` raises; nothing is left behind then.
        """
        partial = self._folder / f"{secrets.token_hex(8)}.part"
        digest = hashlib.sha256()
        try:
            with partial.open("wb") as file:
                async for piece in pieces:
                    digest.update(piece)
                    file.write(piece)
            pictures.inspect(partial, sha256="")
            await asyncio.to_thread(partial.replace, self._folder / digest.hexdigest())
        except BaseException:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise
        return digest.hexdigest()

    def has(self, sha256: str) -> bool:
        return (self._folder / sha256).is_file()

    async def data_url(self, sha256: str) -> str | None:
        """The kept picture as the provider takes it in place of an address; None when it is gone. Counts as a use."""
        return await asyncio.to_thread(self._data_url, self._folder / sha256)

    def _data_url(self, path: Path) -> str | None:
        try:
            kind = pictures.inspect(path, sha256="").type.lower()
            content = path.read_bytes()
            os.utime(path)
        except (OSError, PictureUnusable):
            return None
        return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"

    async def sweep(self, *, now: datetime) -> int:
        """Remove what was not used for its life, then the least recently used over the cap; returns how many went."""
        return await asyncio.to_thread(self._sweep, now.timestamp())

    def _sweep(self, now: float) -> int:
        found = ((path.stat(), path) for path in self._folder.iterdir())
        total = removed = 0
        for status, path in sorted(found, key=lambda one: one[0].st_mtime, reverse=True):
            total += status.st_size
            if now - status.st_mtime > self._life.total_seconds() or total > self._cap:
                path.unlink(missing_ok=True)
                removed += 1
        return removed
