"""Alerts the operator when Discord stays disconnected, and again when it is back."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import TYPE_CHECKING

from bot.domain.health import Connection

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from bot.domain.health import Gateway
    from bot.jobs.notices import Notices

PATIENCE = timedelta(minutes=2)  # Discord asks bots to reconnect now and then, which takes seconds
_PAUSE = 1.0  # seconds between two looks


class GatewayWatch:
    """`state` reads the gateway, `clock` is for people, `seconds` never goes back. A process starts disconnected."""

    def __init__(
        self,
        state: Callable[[], Gateway],
        notices: Notices,
        *,
        clock: Callable[[], datetime],
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._state = state
        self._notices = notices
        self._clock = clock
        self._seconds = seconds
        self._lost: tuple[float, datetime] | None = (seconds(), clock())
        self._alerted = False

    async def run(self) -> None:
        """Look now and then, until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(_PAUSE)

    def look(self) -> None:
        """Notice what has changed since the last look."""
        connection = self._state().connection
        if connection is Connection.CONNECTED:
            self._found()
        elif self._lost is None:
            self._lost = (self._seconds(), self._clock())
        elif not self._alerted and self._lasted() >= PATIENCE:
            self._alerted = True
            self._notices.disconnected(connection, since=self._lost[1])

    def _found(self) -> None:
        if self._alerted:
            self._notices.connected_again(self._lasted())
        self._lost, self._alerted = None, False

    def _lasted(self) -> timedelta:
        return timedelta(seconds=0 if self._lost is None else self._seconds() - self._lost[0])
