"""Counts IDENTIFYs across restarts: Discord resets the token of a bot that sends 1,000 in a day."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from bot.domain.errors import IdentifyLimitReached

if TYPE_CHECKING:
    from collections.abc import Callable

    from bot.domain.protocols import KeyValueStore

_KEY = "identified"
_HOUR = timedelta(hours=1)
_FREE_IDENTIFIES = 20
_IDENTIFY_PAUSE = timedelta(minutes=5)
_SKEW = timedelta(minutes=1)  # a time further ahead was counted by a clock that was wrong


class IdentifyLimit:
    """20 within an hour are free, enough for any bad hour; beyond that one every five minutes, 480 a day at most."""

    def __init__(self, values: KeyValueStore, *, clock: Callable[[], datetime]) -> None:
        self._values = values
        self._clock = clock

    async def wait(self) -> timedelta:
        """How long until the next one is allowed."""
        return _wait(await self._recent(), self._clock())

    async def spend(self) -> None:
        """Record one before it is sent; raises `IdentifyLimitReached` if it is not allowed now."""
        recent, now = await self._recent(), self._clock()
        if (wait := _wait(recent, now)) > timedelta(0):
            raise IdentifyLimitReached(wait)
        await self._values.set_value(_KEY, json.dumps([at.timestamp() for at in [*recent, now]]))

    async def _recent(self) -> list[datetime]:
        known = json.loads(await self._values.get_value(_KEY) or "[]")
        times = (datetime.fromtimestamp(seconds, UTC) for seconds in known)
        now = self._clock()
        return [at for at in times if now - _HOUR < at <= now + _SKEW]


def _wait(recent: list[datetime], now: datetime) -> timedelta:
    if len(recent) < _FREE_IDENTIFIES:
        return timedelta(0)
    return min(_IDENTIFY_PAUSE, max(timedelta(0), recent[-1] + _IDENTIFY_PAUSE - now))
