"""The tasks of the jobs in progress: held, named after their job, waited for at a shutdown and cancelled at its end."""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from bot.ops.logs import job_id

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

    from bot.domain.models import Job

log = logging.getLogger(__name__)

_PREFIX = "job-"
_BESIDE_PREFIX = "beside-"
_NOTICE_PREFIX = "notice-"


class JobTasks:
    """The running tasks; a fault that ends one is logged, never swallowed."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._waiting: set[asyncio.Future[None]] = set()  # for the next task that ends

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def jobs(self) -> frozenset[str]:
        """The ids of the jobs that a task is working on, or beside."""
        return self.in_progress | self._named(_BESIDE_PREFIX)

    @property
    def in_progress(self) -> frozenset[str]:
        """The ids of the jobs that a task is taking to their end."""
        return self._named(_PREFIX)

    def _named(self, prefix: str) -> frozenset[str]:
        names = [task.get_name() for task in self._tasks]
        return frozenset(name.removeprefix(prefix) for name in names if name.startswith(prefix))

    def start(self, work: Coroutine[None, None, None], job: Job) -> None:
        """Run `work` in a task of its own, with the job's id on every log line."""
        self._start(work, job, _PREFIX)

    def start_beside(self, work: Coroutine[None, None, None], job: Job) -> None:
        """The same for work that writes to the job, but decides nothing about it."""
        self._start(work, job, _BESIDE_PREFIX)

    def start_notice(self, work: Coroutine[None, None, None], job: Job) -> None:
        """The same for work that only speaks of the job, which others may go on with meanwhile."""
        self._start(work, job, _NOTICE_PREFIX)

    def _start(self, work: Coroutine[None, None, None], job: Job, prefix: str) -> None:
        token = job_id.set(job.id)
        task = asyncio.create_task(work, name=prefix + job.id)
        job_id.reset(token)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s ended with a fault; the next start recovers its job", task.get_name(), exc_info=error)

    @contextmanager
    def including_this(self) -> Iterator[None]:
        """Count the current task too: a person waits for what it does, or it has a hold and no job task yet."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine always runs in one
        if task in self._tasks:
            yield
            return
        self._tasks.add(task)
        try:
            yield
        finally:
            self._discard(task)

    async def idle(self, seconds: float) -> None:
        """Wait until nothing counted is being done, for at most `seconds`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._tasks:
                    await self._changed()

    async def _changed(self) -> None:
        """Wait until one task is counted no longer: a task that only included itself may go on after that."""
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.add(waiting)
        try:
            await waiting
        finally:
            self._waiting.discard(waiting)

    def _discard(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    async def cancel(self) -> None:
        """Cancel every running task, and wait until it has ended."""
        unfinished = list(self._tasks)
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)
