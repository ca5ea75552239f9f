"""A file that is uploaded from the system's cache, without a thread for every piece of it.

aiohttp reads an ordinary file in small pieces, each in a thread. A finished image was written a moment ago, so its
pages are in memory: mapped, they are encrypted where they are.
"""

from __future__ import annotations

import io
import mmap
from contextlib import suppress
from typing import TYPE_CHECKING

import aiohttp
import discord
from aiohttp.payload import Order

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aiohttp.abc import AbstractStreamWriter

_PIECE = 64 * 1024  # bytes written at once; then the connection is waited for
_CAN_FORGET = hasattr(mmap, "MADV_DONTNEED")  # not on Windows


class MappedFile(io.BufferedIOBase):
    """The content of a file that is not empty; raises `OSError`. The file may be removed meanwhile."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._map.seek(offset, whence)  # type: ignore[arg-type]  # an int like any other
        return self._map.tell()

    def read(self, size: int | None = -1, /) -> bytes:
        return self._map.read(size)

    @property
    def size(self) -> int:
        return len(self._map)

    def pieces(self) -> Iterator[memoryview]:
        """Views of everything behind the position."""
        view = memoryview(self._map)
        for start in range(self._map.tell(), len(view), _PIECE):
            yield view[start : start + _PIECE]
            self._forget(start)

    def _forget(self, start: int) -> None:
        """Count a piece that was sent as memory of this process no longer; whoever reads it again finds it again."""
        if _CAN_FORGET and start % mmap.PAGESIZE == 0:
            self._map.madvise(mmap.MADV_DONTNEED, start, min(_PIECE, len(self._map) - start))

    def close(self) -> None:
        super().close()
        # A connection that was given up still holds a view, and the map with it. Where the file could not be mapped,
        # there is no map: Python 3.13 closes that object, too.
        with suppress(BufferError, AttributeError):
            self._map.close()


class UploadedFile(discord.File):
    """What discord.py sends. It leaves a file that it has not opened open; this one is closed after each request."""

    def close(self) -> None:
        super().close()
        self.fp.close()


class _MappedPayload(aiohttp.Payload):
    """How aiohttp sends a mapped file, wherever it finds one: in the form that discord.py makes, for instance."""

    _value: MappedFile
    _autoclose = True  # there is nothing to close

    @property
    def size(self) -> int:
        return self._value.size - self._value.tell()

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return b"".join(self._value.pieces()).decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        for piece in self._value.pieces():
            await writer.write(piece)


aiohttp.PAYLOAD_REGISTRY.register(_MappedPayload, MappedFile, order=Order.try_first)
