"""Shows how far a job is: its position in the queue, that it runs, and that its picture is late; never more than one
edit in three seconds.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from bot.domain.models import Downloading, Generating, Queued, require

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from datetime import datetime

    from bot.domain.models import Job
    from bot.domain.protocols import Messenger
    from bot.jobs.queue import Ticket

PAUSE = 3.0  # seconds between two edits
LATE = timedelta(seconds=30)  # a finished picture that has not been fetched for so long needs an explanation


class Progress:
    """The progress of one job whose message has just been shown. An edit that Discord is slow to accept is dropped."""

    def __init__(self, job: Job, *, messenger: Messenger, clock: Callable[[], datetime]) -> None:
        self._job = job
        self._messenger = messenger
        self._clock = clock
        self._next = asyncio.get_running_loop().time() + PAUSE

    @asynccontextmanager
    async def turn(self, ticket: Ticket, shown: int) -> AsyncIterator[None]:
        """Wait for the ticket's turn, showing queue progress, then show that generation has started. `shown` is the
        position in the message now.
        """
        if shown == 0:
            async with ticket.turn():
                yield
            return
        async with _beside(self._show_position(ticket, shown)) as waiting, ticket.turn():
            await waiting()
            async with _beside(self._show_running()):
                yield

    async def _show_position(self, ticket: Ticket, shown: int) -> None:
        while True:
            await self._pause()
            if 0 < ticket.position != shown:
                shown = ticket.position
                await self._messenger.show_progress(self._job, Queued(shown))

    async def _show_running(self) -> None:
        started = Generating(self._clock())
        await self._pause()
        await self._messenger.show_progress(self._job, started)

    async def _pause(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._next - loop.time()))
        self._next = loop.time() + PAUSE


class DownloadProgress:
    """Says that a finished picture is late, and when it is fetched again."""

    def __init__(self, job: Job, *, messenger: Messenger, clock: Callable[[], datetime]) -> None:
        self._job = job
        self._messenger = messenger
        self._clock = clock
        self._next_try: datetime | None = None
        self._changed = asyncio.Event()

    @asynccontextmanager
    async def shown(self) -> AsyncIterator[None]:
        """Show it for as long as the block lasts, once the picture is late."""
        async with _beside(self._show()):
            yield

    def pausing(self, seconds: float) -> None:
        """The next try comes after so many seconds."""
        self._next_try = self._clock() + timedelta(seconds=seconds)
        self._changed.set()

    async def _show(self) -> None:
        late = require(self._job.generated_at) + LATE - self._clock()
        await asyncio.sleep(max(PAUSE, late.total_seconds()))
        while True:
            self._changed.clear()
            known = self._next_try
            coming = known if known is not None and known > self._clock() else None
            await self._messenger.show_progress(self._job, Downloading(coming))
            await asyncio.sleep(PAUSE)
            await self._changed.wait()


@asynccontextmanager
async def _beside(work: Coroutine[None, None, None]) -> AsyncIterator[Callable[[], Coroutine[None, None, None]]]:
    """Do `work` beside the block and end it with the block: an edit must not follow what comes next. Yields a way to
    end it earlier.
    """
    task = asyncio.create_task(work)

    async def end() -> None:
        task.cancel()
        await asyncio.wait([task])

    try:
        yield end
    finally:
        await end()
