"""An event loop on virtual time: when nothing is ready, the clock jumps to the next timer. No sockets, no threads."""

from __future__ import annotations

import asyncio
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

T = TypeVar("T")

_TRIP = 0.001  # seconds back from a thread


class Stuck(Exception):
    """Nothing is ready, and nothing ever will be."""


class Numbered(asyncio.Task[T]):
    """A task whose place in a set does not depend on its address: the same run is the same again."""

    number: int = 0
    owner: object = None  # the process it belongs to

    def __hash__(self) -> int:
        return self.number


class Loop(asyncio.BaseEventLoop):
    """Runs what is ready; then it is at once as late as the next timer says."""

    _scheduled: list[asyncio.TimerHandle]  # the base class's heap

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._clock_resolution = 1e-9
        self._selector = self  # the base class asks this one to wait
        self.owner: object = None
        self._numbers = count(1)
        self.set_task_factory(self._numbered)  # type: ignore[arg-type]  # typeshed wants a loop of its own kind

    def time(self) -> float:
        return self._now

    def select(self, timeout: float | None) -> Sequence[Any]:
        if timeout is None:
            raise Stuck
        if timeout > 0:
            self._now = self._scheduled[0].when()
        return ()

    def run_in_executor(self, _: Any, call: Callable[..., T], *given: Any) -> asyncio.Future[T]:  # type: ignore[override]
        """What would go to a thread is done here and now; its caller hears of it later, as always."""
        future: asyncio.Future[T] = self.create_future()
        try:
            answer = partial(future.set_result, call(*given))
        except Exception as error:  # noqa: BLE001 - handed to whoever waits
            answer = partial(future.set_exception, error)
        self.call_later(_TRIP, lambda: None if future.done() else answer())
        return future

    def _numbered(self, loop: Loop, work: Coroutine[Any, Any, T], **given: Any) -> Numbered[T]:
        task = Numbered.__new__(Numbered)
        task.number, task.owner = next(self._numbers), self.owner  # before it is put into the set of all tasks
        task.__init__(work, loop=loop, **given)  # type: ignore[misc]
        return task

    def _process_events(self, _: Sequence[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody sleeps."""
