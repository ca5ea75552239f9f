"""Adds the reaction under results in the background. Discord takes about four a second in a channel, so after a busy
minute they are late; but they are never in the way of a result, and given up only when nobody looks for them any more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

LIFE = timedelta(minutes=10)  # nobody looks for a reaction under an older result any more
CAP = 2000  # seeds that wait in one channel; what Discord takes within their life
_AT_ONCE = 8  # requests in all channels: the connections are for the results
_PAUSE_SECONDS = 5.0  # while there is no connection to Discord


class SeedQueue:
    """`add` adds the reaction to a message of a channel; it returns False if that may work later, and never raises."""

    def __init__(self, add: Callable[[int, int], Awaitable[bool]], *, clock: Callable[[], datetime]) -> None:
        self._add = add
        self._clock = clock
        self._waiting: dict[int, deque[tuple[int, datetime]]] = {}  # messages by channel, the oldest first
        self._workers: dict[int, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(_AT_ONCE)

    def put(self, channel_id: int, message_id: int) -> None:
        """Add the reaction to a message soon, before those that have waited longer."""
        self._waiting.setdefault(channel_id, deque(maxlen=CAP)).append((message_id, self._clock()))
        if channel_id not in self._workers:
            worker = asyncio.create_task(self._work(channel_id), name=f"seeds-{channel_id}")
            self._workers[channel_id] = worker

    async def _work(self, channel_id: int) -> None:
        waiting = self._waiting[channel_id]
        while waiting:
            message_id, since = waiting.pop()
            if since + LIFE <= self._clock():
                break  # the others are older still
            async with self._slots:
                done = await self._add(channel_id, message_id)
            if not done:
                waiting.append((message_id, since))
                await asyncio.sleep(_PAUSE_SECONDS)
        del self._waiting[channel_id], self._workers[channel_id]

    async def close(self) -> None:
        """Give up what waits: the next start does not know of it."""
        workers = list(self._workers.values())
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
