"""Counts IDENTIFYs across restarts and shards: Discord resets the token of a bot that sends 1,000 in a day."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from bot.domain.errors import IdentifyLimitReached
from bot.domain.session_starts import SessionStarts
from bot.text import operator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from bot.domain.protocols import KeyValueStore

log = logging.getLogger(__name__)

_KEY = "identified"
_DAY = timedelta(days=1)
_FEWEST_FREE, _FREE_STARTS = 20, 4  # IDENTIFYs in a row: enough for any bad hour, and for so many starts of all shards
_PAUSE = timedelta(minutes=5)  # between the later ones of one shard
_OURS = 2  # the part of Discord's daily limit that the bot uses at most, as a divisor
_SKEW = timedelta(minutes=1)  # a time further ahead was counted by a clock that was wrong
INTERVAL = 5.0  # seconds; in each of them, Discord accepts `max_concurrency` IDENTIFYs
_NOTHING = 1e-6  # IDENTIFYs; less is a rounding error


class IdentifyLimit:
    """A leaky bucket: 20 in a row are free, or four starts of all shards. After that, one every five minutes for each
    shard, or fewer: in any 24 hours, at most half of what Discord allows. `interval` is that of Discord.
    """

    def __init__(self, values: KeyValueStore, *, clock: Callable[[], datetime]) -> None:
        self._values = values
        self._clock = clock
        self.interval = INTERVAL
        self._spending = asyncio.Lock()
        self._turns: dict[int, _Turn] = {}
        self._starts = SessionStarts()
        self._reset_at = clock()

    @property
    def shards(self) -> int:
        """How many Discord has recommended last; one if it has said nothing yet."""
        return self._starts.shards

    def heed(self, starts: SessionStarts) -> None:
        """From now on, follow what Discord has said about its own limit."""
        self._starts = starts
        self._reset_at = self._clock() + starts.reset_after

    async def wait(self) -> timedelta:
        """How long until every shard may identify."""
        return self._wait(await self._recent(), self._starts.shards)

    async def spend(self) -> None:
        """Record one before it is sent; raises `IdentifyLimitReached` if it is not allowed now."""
        async with self._spending:
            recent = await self._recent()
            if (wait := self._wait(recent, 1)) > timedelta(0):
                raise IdentifyLimitReached(wait)
            times = [at.timestamp() for at in [*recent, self._clock()]]
            await self._values.set_value(_KEY, json.dumps(times))
            self._starts = replace(self._starts, remaining=self._starts.remaining - 1)

    async def until_free(self) -> None:
        """Wait until one is allowed."""
        while (wait := self._wait(await self._recent(), 1)) > timedelta(0):
            log.error("%s", operator.identify_limit(wait))
            await asyncio.sleep(wait.total_seconds())

    @asynccontextmanager
    async def turn(self, shard: int) -> AsyncIterator[None]:
        """Wait for the moment in which this shard may identify. Discord counts together the shards whose numbers leave
        the same rest. One that fails before that keeps nobody waiting.
        """
        turn = self._turns.setdefault(shard % self._starts.max_concurrency, _Turn())
        async with turn.lock:
            await asyncio.sleep(turn.free_at - asyncio.get_running_loop().time())
            yield
            turn.free_at = asyncio.get_running_loop().time() + self.interval

    async def _recent(self) -> list[datetime]:
        known = json.loads(await self._values.get_value(_KEY) or "[]")
        times = (datetime.fromtimestamp(seconds, UTC) for seconds in known)
        now = self._clock()
        return sorted(at for at in times if now - _DAY < at <= now + _SKEW)

    def _wait(self, recent: Sequence[datetime], count: int) -> timedelta:
        """How long until that many are allowed in a row."""
        now, starts = self._clock(), self._starts
        if now < self._reset_at and not starts.allow(count):
            return self._reset_at - now
        free, pause = _rules(starts)
        excess = _level(recent, now, pause) + count - free
        return excess * pause if excess > _NOTHING else timedelta(0)


class _Turn:
    """One after the other may identify."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.free_at = 0.0  # by the clock of the event loop


def _rules(starts: SessionStarts) -> tuple[int, timedelta]:
    """How many are free in a row, and the pause between the later ones: together, no more than our part in a day."""
    ours = starts.total // _OURS
    free = max(_FEWEST_FREE, starts.shards, min(_FREE_STARTS * starts.shards, ours // 2))
    return free, max(_PAUSE / starts.shards, _DAY / max(1, ours - free))


def _level(recent: Sequence[datetime], now: datetime, pause: timedelta) -> float:
    """How full the bucket is: each IDENTIFY adds one, and each `pause` takes one away."""
    level, last = 0.0, now - _DAY
    for at in recent:
        level = max(0.0, level - (at - last) / pause) + 1.0
        last = at
    return max(0.0, level - max(timedelta(0), now - last) / pause)
