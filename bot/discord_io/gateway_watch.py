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
    """`state` reads the gateway, `clock` is for people, `seconds` never goes back. A process starts disconnected.

    Each connection has its own time: many short interruptions of many connections are no long one.
    """

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
        self._lost = {0: (seconds(), clock())}  # by the number of the connection
        self._told: float | None = None  # since when, once it has been told
        self._told_of_all = False

    async def run(self) -> None:
        """Look now and then, until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(_PAUSE)

    def look(self) -> None:
        """Notice what has changed since the last look."""
        state = self._state()
        self._note(state)
        long = {number: lost for number, lost in self._lost.items() if self._lasted(lost[0]) >= PATIENCE}
        if not long:
            self._found()
        elif self._told is None or (not self._told_of_all and long.keys() >= set(range(len(state.connections)))):
            self._told, since = min(long.values())
            self._told_of_all = state.are_all_away
            self._notices.disconnected(state, since=since)

    def _note(self, state: Gateway) -> None:
        """One that waits for its turn is not lost yet; if it was, it still is."""
        if state.is_connected:
            self._lost.clear()
        for number, connection in enumerate(state.connections):
            if connection is Connection.CONNECTED:
                self._lost.pop(number, None)
            elif connection is not Connection.WAITING:
                self._lost.setdefault(number, (self._seconds(), self._clock()))

    def _found(self) -> None:
        if self._told is not None:
            self._notices.connected_again(self._lasted(self._told))
            self._told, self._told_of_all = None, False

    def _lasted(self, since: float) -> timedelta:
        return timedelta(seconds=self._seconds() - since)
