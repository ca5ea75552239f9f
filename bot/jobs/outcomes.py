"""Every ending but the delivery: a hold released, a picture kept for its requester, and the requester notified."""

from __future__ import annotations

import logging
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

from bot.domain.errors import (
    DeliveryDelayed,
    InternalError,
    Interrupted,
    JobFailed,
    OutputUnreachable,
    PictureUnusable,
    TransitionRefused,
    Undeliverable,
)
from bot.domain.failure_policy import may_download_again
from bot.domain.models import Job, Picture, State, require
from bot.text import operator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from datetime import datetime

    from bot.jobs.ports import Ports
    from bot.jobs.retry import Retry
    from bot.jobs.tasks import JobTasks

    HandOver = Callable[[Job, Picture], Awaitable[int]]

log = logging.getLogger(__name__)

OUTPUT_LIFE = timedelta(hours=24) - timedelta(minutes=5)  # the provider keeps an output for 24 hours
DELIVERY_TIME = timedelta(hours=24)  # how long a delivery or a notification is tried


class Outcomes:
    """Ends jobs in every way that is not the picture in its place."""

    def __init__(self, ports: Ports, *, tasks: JobTasks, retry: Retry) -> None:
        self._ports = ports
        self._tasks = tasks
        self._retry = retry
        self.claimed: set[str] = set()  # jobs whose picture is being handed over right now

    async def release(self, job: Job, failure: JobFailed) -> None:
        """Release the hold, tell the operator, then notify the requester for as long as it takes."""
        try:
            ended = await self._retry.commit(
                self._ports.repository.released,
                job,
                reason=failure.reason,
                request_id=getattr(failure, "request_id", None),
                now=self._ports.clock(),
            )
        except TransitionRefused:
            log.warning("job %s had already ended", job.id)
            return
        log.info("job %s released: %s", job.id, operator.failure(failure))
        self._ports.metrics.ended(failure.kind)
        self._ports.notices.job_failed(job, failure)
        await self.notify(ended)
        await self._ports.spool.remove(ended)

    async def park(self, job: Job, failure: Undeliverable) -> None:
        """Keep a picture that could not be delivered: it is whole and paid for, and its requester may claim it."""
        try:
            job = await self._on_disk(job)
        except Interrupted:
            return
        except JobFailed as lost:
            await self.release(job, lost)
            return
        job = await self._retry.commit(self._ports.repository.parked, job, now=self._ports.clock())
        self._ports.notices.job_parked(job, failure)
        self._tasks.start_notice(self._notify_kept(job), job)

    async def _on_disk(self, job: Job) -> Job:
        """Write a picture that only memory holds to the spool before it has to wait."""
        picture = require(job.picture)
        if picture.content is None:
            return job
        kept = await self._write_until_kept(job, picture.content)
        return await self._retry.commit(self._ports.repository.spooled, job, kept)

    async def _write_until_kept(self, job: Job, content: bytes) -> Picture:
        expires = require(job.generated_at) + OUTPUT_LIFE
        tries = 0
        while True:
            tries += 1
            try:
                return await self._ports.spool.write(job, _one(content))
            except OSError as error:
                failure: JobFailed = OutputUnreachable(f"spool: {type(error).__name__} {error.errno}")
            except PictureUnusable as unusable:
                failure = unusable
            if not may_download_again(failure, tries) or self._ports.clock() >= expires:
                raise failure
            await self._retry.pause(failure, tries)

    async def internal_error(self, job: Job) -> None:
        """A fault of this program must not cost a picture that is paid for: keep it, or let the next housekeeping
        fetch it again.
        """
        known: Job | None = await self._retry.commit(self._ports.repository.job, job.id)
        job = known or job
        if job.ended_at is not None:
            return
        if job.state is State.SPOOLED:
            await self.park(job, Undeliverable("a fault of this program"))
        elif job.state is not State.GENERATED or self._ports.clock() >= require(job.generated_at) + OUTPUT_LIFE:
            await self.release(job, InternalError())
        self._ports.notices.internal_error(job)

    async def claim(self, user_id: int, hand_over: HandOver) -> int:
        """Hand over every picture that is kept for a member, except those of jobs in progress; returns how many.

        `hand_over` shows one and returns the id of the message that carries it. A picture for which it fails stays
        kept, and the first of its failures is raised once all have been tried.
        """
        claimed, failures = 0, list[Exception]()
        for job in await self._ports.repository.parked_jobs(user_id):
            if job.id in self.claimed:
                continue
            self.claimed.add(job.id)  # from here on housekeeping does not release it
            try:
                current = await self._ports.repository.job(job.id)
                if current is not None and current.ended_at is None and job.id not in self._tasks.jobs:
                    claimed += await self._hand_over(job, hand_over)
            except Exception as failure:  # noqa: BLE001 - raised below: one bad picture must not block the others
                failures.append(failure)
            finally:
                self.claimed.discard(job.id)
        if failures:
            raise failures[0]
        return claimed

    async def _hand_over(self, job: Job, hand_over: HandOver) -> int:
        """Hand over one picture; returns 1, or 0 if its file is gone."""
        picture = require(job.picture)
        if not picture.path.exists():
            await self.release(job, PictureUnusable("gone from the spool"))
            return 0
        message_id = await hand_over(job, picture)
        with suppress(TransitionRefused):  # claimed twice at the same moment: charged once
            await self._retry.commit(
                self._ports.repository.delivered, job, message_id=message_id, now=self._ports.clock()
            )
            self._ports.metrics.ended("claimed")
        await self._ports.spool.remove(job)
        return 1

    async def notify(self, job: Job) -> None:
        """Show a released job's end to its requester, for as long as it takes; then record that."""
        try:
            await self._notify_until_shown(job, until=require(job.ended_at) + DELIVERY_TIME)
        except Interrupted:
            return  # the next start notifies
        except JobFailed as failure:
            log.info("job %s: its requester could not be notified: %s", job.id, operator.failure(failure))
        await self._retry.commit(self._ports.repository.notified, job, now=self._ports.clock())

    async def _notify_kept(self, job: Job) -> None:
        """Say that the picture waits for its requester: a text may be accepted where the picture was not."""
        with suppress(Interrupted, JobFailed):
            await self._notify_until_shown(job, until=require(job.parked_at) + DELIVERY_TIME)

    async def _notify_until_shown(self, job: Job, *, until: datetime) -> None:
        tries = 0
        while True:
            tries += 1
            try:
                await self._ports.messenger.notify(job)
            except DeliveryDelayed as failure:
                if self._ports.clock() >= until:
                    raise
                await self._retry.pause(failure, tries)
                if job.ended_at is None and await self._has_ended(job):
                    return  # claimed meanwhile
            else:
                return

    async def _has_ended(self, job: Job) -> bool:
        current = await self._ports.repository.job(job.id)
        return current is None or current.ended_at is not None


async def _one(piece: bytes) -> AsyncIterator[bytes]:
    yield piece
