"""A condition to wait on: looked at again at every change, never on a clock."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Signal:
    """Wakes whoever waits for a condition; a change is passed on to the parent."""

    __slots__ = ("_parent", "_waiters")

    def __init__(self, parent: Signal | None = None) -> None:
        self._parent = parent
        self._waiters: dict[asyncio.Future[None], Callable[[], bool]] = {}

    def changed(self) -> None:
        for future, holds in list(self._waiters.items()):
            _look(future, holds)
        if self._parent is not None:
            self._parent.changed()

    async def until(self, holds: Callable[[], bool], seconds: float, *, about: object) -> None:
        """Raises TimeoutError, which says how `about` looked at the end."""
        if holds():
            return
        future = asyncio.get_running_loop().create_future()
        self._waiters[future] = holds
        try:
            async with asyncio.timeout(seconds):
                await future
        except TimeoutError:
            raise TimeoutError(f"not within {seconds} s: {about}") from None
        finally:
            del self._waiters[future]


def _look(future: asyncio.Future[None], holds: Callable[[], bool]) -> None:
    if future.done():
        return
    try:
        if holds():
            future.set_result(None)
    except Exception as failure:  # noqa: BLE001 - the condition is the waiter's own, and so is its failure
        future.set_exception(failure)
