"""An event loop on virtual time, without sockets or threads. When it is idle, its clock jumps to the next timer."""

from __future__ import annotations

import asyncio
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

T = TypeVar("T")

_THREAD_DELAY = 0.001  # seconds until a thread's result arrives


class Deadlock(Exception):
    """Every task is waiting, and no timer is set."""


class NumberedTask(asyncio.Task[T]):
    """A task whose hash is its number, not its memory address. Sets of tasks iterate in the same order in every run."""

    number: int = 0
    owner: object = None  # the process it belongs to

    def __hash__(self) -> int:
        return self.number


class Loop(asyncio.BaseEventLoop):
    """Runs all ready callbacks, then moves the clock to the next timer without waiting."""

    _scheduled: list[asyncio.TimerHandle]  # the base class's heap

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._clock_resolution = 1e-9
        self._selector = self  # the base class calls `select` on this to wait
        self.owner: object = None
        self._numbers = count(1)
        self.set_task_factory(self._new_task)  # type: ignore[arg-type]  # typeshed expects the base loop type

    def time(self) -> float:
        return self._now

    def select(self, timeout: float | None) -> Sequence[Any]:
        if timeout is None:
            raise Deadlock
        if timeout > 0:
            self._now = self._scheduled[0].when()
        return ()

    def run_in_executor(self, _: Any, call: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        """Run the call immediately, without a thread. The caller still gets the result later."""
        future: asyncio.Future[T] = self.create_future()
        try:
            deliver = partial(future.set_result, call(*args))
        except Exception as error:  # noqa: BLE001 - the caller receives it
            deliver = partial(future.set_exception, error)
        self.call_later(_THREAD_DELAY, lambda: None if future.done() else deliver())
        return future

    def _new_task(self, loop: Loop, work: Coroutine[Any, Any, T], **options: Any) -> NumberedTask[T]:
        task = NumberedTask.__new__(NumberedTask)
        task.number, task.owner = next(self._numbers), self.owner  # set before the task joins the set of all tasks
        task.__init__(work, loop=loop, **options)  # type: ignore[misc]
        return task

    def _process_events(self, _: Sequence[Any]) -> None:
        """Do nothing. This loop has no I/O events."""

    def _write_to_self(self) -> None:
        """Do nothing. This loop never blocks, so nothing needs to wake it."""
