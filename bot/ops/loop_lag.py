"""Measures how late the event loop is: whatever blocks it delays everything else by as much."""

from __future__ import annotations

import asyncio
from collections import deque

_PAUSE = 1.0  # seconds between two measurements
_KEPT = 60  # measurements


class LoopLag:
    """In seconds; 0 until the first measurement."""

    def __init__(self) -> None:
        self._due: float | None = None  # when the loop should come back to us
        self._measured: deque[float] = deque([0.0], maxlen=_KEPT)

    async def run(self) -> None:
        """Measure until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            self._due = loop.time() + _PAUSE
            await asyncio.sleep(_PAUSE)
            self._measured.append(max(0.0, loop.time() - self._due))

    @property
    def now(self) -> float:
        """Of the last measurement, or of the one that is overdue."""
        overdue = 0.0 if self._due is None else asyncio.get_running_loop().time() - self._due
        return max(self._measured[-1], overdue)

    @property
    def highest(self) -> float:
        """Within the last minute."""
        return max(self.now, *self._measured)
