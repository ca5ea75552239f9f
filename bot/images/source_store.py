"""Source images, kept by the hash of their bytes so that a job can be repeated; capped in bytes and in days."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import secrets
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from blake3 import blake3

from bot.domain.errors import PictureUnusable
from bot.images import folders, inspection
from bot.images.incoming import IncomingFile, to_its_end

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Collection
    from datetime import datetime, timedelta
    from pathlib import Path

_NO_TIME = 0.0  # a time at which nothing is too old
_ROOM = 0.9  # of the cap, to which a full folder is swept: each sweep looks at every file in it
_BLOCK = 3 * 64 * 1024  # bytes read at once; base64 turns three into four


class SourceStore:
    """A folder of files named after their hash. `life` counts from the last use, `cap` is bytes in all; a life of
    zero keeps nothing.
    """

    def __init__(self, folder: Path, *, life: timedelta, cap: int) -> None:
        self._folder = folder
        self._life = life
        self._cap = cap
        self._lock = threading.Lock()  # of the total, which several threads add to
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._total = sum(status.st_size for status, _ in folders.files_in(folder))

    @property
    def enabled(self) -> bool:
        return self._life.total_seconds() > 0 and self._cap > 0

    @property
    def size(self) -> int:
        """The bytes of all images."""
        return self._total

    async def add(self, pieces: AsyncIterable[bytes]) -> str:
        """Store an image; returns its hash. Raises `PictureUnusable` for anything that is no image, `OSError`, and
        what `pieces` raises; nothing is left behind then.
        """
        partial = self._folder / f"{secrets.token_hex(8)}{folders.PARTIAL}"
        try:
            with partial.open("wb", 0) as file:
                incoming = IncomingFile(file.fileno())
                await incoming.receive(pieces)
                return await to_its_end(self._finish, partial, incoming)
        except BaseException:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise

    def _finish(self, partial: Path, incoming: IncomingFile) -> str:
        incoming.flush()
        size = inspection.inspect(partial).size
        with self._lock:
            target = self._folder / incoming.hash
            self._total += 0 if target.exists() else size
            partial.replace(target)
            if self._total > self._cap:  # a busy hour must not fill the disk before the next sweep
                self._sweep(_NO_TIME, cap=max(int(_ROOM * self._cap), min(size, self._cap)))
        return incoming.hash

    def has(self, name: str) -> bool:
        return (self._folder / name).is_file()

    async def data_url(self, name: str) -> str | None:
        """The kept image as the provider accepts it instead of a URL; None if it is gone. Counts as a use."""
        return await asyncio.to_thread(self._data_url, self._folder / name)

    def _data_url(self, path: Path) -> str | None:
        digests = (blake3(), hashlib.sha256())  # earlier versions named files after the latter
        try:
            parts = [f"data:image/{inspection.inspect(path).type.lower()};base64,"]
            with path.open("rb") as file:
                while block := file.read(_BLOCK):  # in one piece, other threads would wait for base64
                    for digest in digests:
                        digest.update(block)
                    parts.append(base64.b64encode(block).decode())
            os.utime(path)
        except (OSError, PictureUnusable):
            return None
        if path.name not in [digest.hexdigest() for digest in digests]:
            return None  # a power cut came between its name and its bytes
        return "".join(parts)

    async def remove_all(self, names: Collection[str]) -> None:
        """Delete images by their hashes, as far as they are here."""
        await asyncio.to_thread(self._remove_all, names)

    def _remove_all(self, names: Collection[str]) -> None:
        with self._lock:
            for name in names:
                path = self._folder / name
                with suppress(FileNotFoundError):
                    size = path.stat().st_size
                    path.unlink()
                    self._total -= size

    async def sweep(self, *, now: datetime) -> int:
        """Delete what was not used for its life, what is abandoned half written, and the least recently used over the
        cap; returns how many.
        """
        return await asyncio.to_thread(self._locked_sweep, now.timestamp())

    def _locked_sweep(self, now: float) -> int:
        with self._lock:
            return self._sweep(now, cap=self._cap)

    def _sweep(self, now: float, *, cap: int) -> int:
        deleted, self._total = folders.sweep(self._folder, now=now, life_seconds=self._life.total_seconds(), cap=cap)
        return deleted
