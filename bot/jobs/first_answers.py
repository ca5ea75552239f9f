"""People who wait for a first answer go first: Discord allows three seconds for it, and everything else can wait."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST_WAIT = 3.0  # seconds, as long as Discord waits: a crowd that never ends must not stop the others


class FirstAnswers:
    """Knows how many requests have had no answer yet."""

    def __init__(self) -> None:
        self._pending = 0
        self._all_given = asyncio.Event()

    @contextmanager
    def pending(self) -> Iterator[None]:
        """One request waits for its answer during this block."""
        self._pending += 1
        self._all_given.clear()
        try:
            yield
        finally:
            self._pending -= 1
            if not self._pending:
                self._all_given.set()

    async def give_way(self) -> None:
        """Wait until nobody waits for an answer, for at most `LONGEST_WAIT`; one request alone is not waited for."""
        if self._pending > 1:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._all_given.wait(), LONGEST_WAIT)
