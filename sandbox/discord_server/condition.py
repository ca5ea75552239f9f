"""A condition to wait for. It is checked again after every change, so nothing polls."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Condition:
    """Wakes the waiters whose predicate has become true. A change also notifies the parent."""

    __slots__ = ("_parent", "_waiters")

    def __init__(self, parent: Condition | None = None) -> None:
        self._parent = parent
        self._waiters: dict[asyncio.Future[None], Callable[[], bool]] = {}

    def notify(self) -> None:
        for future, predicate in list(self._waiters.items()):
            _check(future, predicate)
        if self._parent is not None:
            self._parent.notify()

    async def wait_for(self, predicate: Callable[[], bool], seconds: float, *, about: object) -> None:
        """Raises TimeoutError; its message shows the last state of `about`."""
        if predicate():
            return
        future = asyncio.get_running_loop().create_future()
        self._waiters[future] = predicate
        try:
            async with asyncio.timeout(seconds):
                await future
        except TimeoutError:
            raise TimeoutError(f"not within {seconds} s: {about}") from None
        finally:
            del self._waiters[future]


def _check(future: asyncio.Future[None], predicate: Callable[[], bool]) -> None:
    if future.done():
        return
    try:
        if predicate():
            future.set_result(None)
    except Exception as failure:  # noqa: BLE001 - the predicate belongs to the waiter, and so does its failure
        future.set_exception(failure)
