"""Start, housekeeping and shutdown: the same transitions, continued from the stored state."""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bot.domain.errors import NotStarted, NotStartedCause, OutcomeUnknown, Restarting, Undeliverable
from bot.domain.models import CLAIM_LIFE, Job, State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bot.jobs.lifecycle import Lifecycle
    from bot.jobs.outcomes import Outcomes
    from bot.jobs.ports import Ports
    from bot.jobs.retry import Retry
    from bot.jobs.tasks import JobTasks

log = logging.getLogger(__name__)

_NOTIFY_SECONDS = 10.0  # for notifying the requesters of jobs that a shutdown has ended
_PAID = (State.GENERATED, State.SPOOLED)


class Recovery:
    """`restored` says that the database is an older copy: what it calls open may have been delivered long ago."""

    def __init__(
        self,
        ports: Ports,
        *,
        lifecycle: Lifecycle,
        outcomes: Outcomes,
        tasks: JobTasks,
        retry: Retry,
        restored: bool = False,
    ) -> None:
        self._ports = ports
        self._lifecycle = lifecycle
        self._outcomes = outcomes
        self._tasks = tasks
        self._retry = retry
        self._restored = restored
        self._recovered = False
        self._stopping = False
        self._recovering = asyncio.Lock()  # the first connection and the housekeeping may both come here

    async def recover(self) -> None:
        """After a start: end what cannot go on, continue what can, notify whoever was not notified. Once a process."""
        async with self._recovering:
            if self._recovered:
                return
            unnotified = await self._ports.repository.unnotified_jobs()
            paid = await self._settle(keep=not self._restored)
            claimed = await self._claimed()
            self._recovered = True  # only now: what could not be read is read again by the next connection
        for job in unnotified:
            self._tasks.start(self._outcomes.notify(job), job)
        for job in claimed:
            self._tasks.start(self._outcomes.finish_claim(job), job)
        for job in paid:
            self._tasks.start(self._lifecycle.run(job), job)
            self._tasks.start_beside(self._ports.sources.keep(job), job)
        log.info("recovered: %d jobs go on, %d requesters to notify", len(paid), len(unnotified))
        await self.tidy()

    async def tidy(self) -> None:
        """Continue what a fault left behind, release what was not claimed in time, and remove files that no job needs.
        Call it now and then. As long as nothing has been recovered it does that instead, by the rules of a start.
        """
        if not self._recovered:
            await self.recover()
            return
        now = self._ports.clock()
        before = self._tasks.jobs
        jobs = await self._ports.repository.open_jobs()
        for job in jobs:
            if job.id in before or job.id in self._tasks.jobs or job.id in self._outcomes.claimed:
                continue
            if job.parked_at is not None and job.parked_at + CLAIM_LIFE < now:
                self._tasks.start(self._outcomes.release(job, Undeliverable("not claimed in time")), job)
            elif job.parked_at is None and job.state in _PAID:
                self._tasks.start(self._lifecycle.run(job), job)
        removed = await self._ports.spool.sweep(now=now, needed=frozenset(job.id for job in jobs))
        if removed:
            log.info("%d files removed from the spool", removed)

    async def _claimed(self) -> list[Job]:
        """The jobs whose kept picture was being handed over."""
        if self._restored:
            return []  # they have been released
        return [job for job in await self._ports.repository.open_jobs() if job.claim is not None]

    @contextmanager
    def waited_for(self) -> Iterator[None]:
        """A shutdown waits for what the current task does in this block. Raises `Restarting` once it has begun."""
        if self._stopping:
            raise Restarting
        with self._tasks.including_this():
            yield

    def stop_accepting(self) -> None:
        """Reject new requests and dismiss those that are queued."""
        self._stopping = True
        self._retry.stop()
        self._ports.queue.close()

    async def close(self, *, grace: float) -> None:
        """Finish what is in progress within `grace` seconds, then leave the rest as the next start expects it."""
        self.stop_accepting()
        if self._tasks:
            log.info("finishing what is in progress, for at most %.0f s", grace)
        await self.idle(grace)
        await self._tasks.cancel()
        await self._settle(keep=True)
        await self.idle(_NOTIFY_SECONDS)

    async def idle(self, seconds: float) -> None:
        """Wait until no job is in progress, for at most `seconds`."""
        await self._tasks.idle(seconds)

    async def _settle(self, *, keep: bool) -> list[Job]:
        """Release every job that may not go on; returns those that may, since their picture is paid for."""
        paid = []
        for job in await self._ports.repository.open_jobs():
            if keep and job.parked_at is not None:
                continue
            if keep and job.state in _PAID:
                paid.append(job)
            elif job.state is State.SENDING:
                unknown = OutcomeUnknown("the program stopped before the answer")
                self._tasks.start(self._outcomes.release(job, unknown), job)
            else:
                self._tasks.start(self._outcomes.release(job, NotStarted(NotStartedCause.RESTARTING)), job)
        return paid
