"""Showing how far a job is: its place in line, then that it runs; never more than one edit in three seconds."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from bot.text import words

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from datetime import datetime

    from bot.domain.models import Job
    from bot.domain.protocols import Delivery, Place

PAUSE = 3.0  # seconds between two edits


class Progress:
    """The progress of one job whose first words have just been shown; what Discord is slow to take is dropped."""

    def __init__(self, job: Job, *, delivery: Delivery, clock: Callable[[], datetime]) -> None:
        self._job = job
        self._delivery = delivery
        self._clock = clock
        self._next = asyncio.get_running_loop().time() + PAUSE

    @asynccontextmanager
    async def turn(self, place: Place, shown: int) -> AsyncIterator[None]:
        """The turn of `place`, with the line's movement shown before it, and that the waiting is over in it. `shown`
        is the position that can be read now.
        """
        if shown == 0:
            async with place.turn():
                yield
            return
        async with _beside(self._show_line(place, shown)) as waiting, place.turn():
            await waiting()
            async with _beside(self._show_running()):
                yield

    async def _show_line(self, place: Place, shown: int) -> None:
        while True:
            await self._pause()
            if 0 < place.position != shown:
                shown = place.position
                await self._delivery.progress(self._job, words.queued(self._job, shown), cancellable=True)

    async def _show_running(self) -> None:
        text = words.generating(self._job, self._clock())
        await self._pause()
        await self._delivery.progress(self._job, text)

    async def _pause(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._next - loop.time()))
        self._next = loop.time() + PAUSE


@asynccontextmanager
async def _beside(work: Coroutine[None, None, None]) -> AsyncIterator[Callable[[], Coroutine[None, None, None]]]:
    """Do `work` beside the block; an edit still under way at its end must not follow what comes next. Yields the way
    to end it earlier.
    """
    task = asyncio.create_task(work)

    async def end() -> None:
        task.cancel()
        await asyncio.wait([task])

    try:
        yield end
    finally:
        await end()
