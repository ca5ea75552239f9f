"""A file that is written while it streams in: in blocks, in threads, and hashed on the way."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from blake3 import blake3

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable

P = ParamSpec("P")
T = TypeVar("T")

_BLOCK = 256 * 1024  # bytes collected for one trip to a thread


class IncomingFile:
    """Writes to the open file `descriptor`. Call `flush`, in a thread, for what `receive` has not written yet."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._digest = blake3()
        self._waiting: list[bytes] = []

    async def receive(self, pieces: AsyncIterable[bytes]) -> None:
        """Raises `OSError`, and what `pieces` raises."""
        size = 0
        async for piece in pieces:
            self._waiting.append(piece)
            size += len(piece)
            if size >= _BLOCK:
                await to_its_end(self.flush)
                size = 0

    def flush(self) -> None:
        pieces, self._waiting = self._waiting, []
        for piece in pieces:
            self._digest.update(piece)
            view = memoryview(piece)
            while view:
                view = view[os.write(self._descriptor, view) :]

    @property
    def hash(self) -> str:
        """Of everything that was written: BLAKE3, because SHA-256 takes ten times as long on common processors."""
        return self._digest.hexdigest()


async def to_its_end(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `call` in a thread; a cancellation waits for it, or its file could be closed while it writes."""
    work = asyncio.ensure_future(asyncio.to_thread(call, *args, **kwargs))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise
