"""Every ending but the delivery: a hold released, a picture kept for its requester, and the requester notified."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import replace
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
from bot.domain.failure_policy import BALANCE_REASONS, may_download_again
from bot.domain.models import TOKEN_LIFE, Claim, Claimed, Job, Picture, State, require
from bot.text import operator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime

    from bot.jobs.ports import Ports
    from bot.jobs.retry import Retry
    from bot.jobs.tasks import JobTasks

log = logging.getLogger(__name__)

OUTPUT_LIFE = timedelta(hours=24) - timedelta(minutes=5)  # the provider keeps an output for 24 hours
DELIVERY_TIME = timedelta(hours=24)  # how long a delivery or a notification is tried


_NOT_SHOWN = (PictureUnusable, Undeliverable)  # what was to be handed over is certainly not there


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
        self._ports.metrics.ended(failure.kind, ended)
        self._ports.notices.job_failed(job, failure)
        if failure.reason in BALANCE_REASONS:
            await self._ports.refill.refused(job.requester)
        self._ports.job_log.ended(ended)
        await self.notify(ended)
        if job.generated_at is not None:
            await self._ports.spool.remove(job)

    def delivered(self, job: Job, *, outcome: str = "delivered") -> None:
        """The image is where its requester sees it, and charged for: write that down."""
        log.info("%s", operator.delivered(job), extra={"facts": operator.delivered_facts(job)})
        self._ports.metrics.ended(outcome, job)
        self._ports.job_log.ended(job)

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
        """See that a picture is on disk, and that the database knows its file, before it has to wait."""
        picture = require(job.picture)
        if picture.content is not None:
            picture = await self._write_until_kept(job, picture.content)
        with suppress(OSError):  # it is there all the same, until the power fails
            await self._ports.spool.flush(picture)
        return await self._retry.commit(self._ports.repository.spooled, job, picture)

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
        picture = job.picture or (await self._ports.spool.find(job) if job.state is State.GENERATED else None)
        if picture is not None:
            await self.park(replace(job, picture=picture), Undeliverable("a fault of this program"))
        elif job.state is not State.GENERATED or self._ports.clock() >= require(job.generated_at) + OUTPUT_LIFE:
            await self.release(job, InternalError())
        self._ports.notices.internal_error(job)

    async def claim(self, claim: Claim) -> Claimed:
        """Hand over the oldest picture that is kept for a member, unless its job is in progress.

        One that Discord can't be shown stays kept and does not block the next; the first of these failures is raised
        after that. Any other failure is raised at once: the picture may be there, so nothing may take its place.
        """
        kept = await self._ports.repository.parked_jobs(claim.user_id)
        failures = list[JobFailed]()
        done: Claimed | None = None
        for number, job in enumerate(kept, 1):
            if job.id in self.claimed:
                continue
            self.claimed.add(job.id)  # from here on housekeeping does not release it
            try:
                done = await self._claim(job, claim, others=len(kept) - number)
            except _NOT_SHOWN as failure:
                failures.append(failure)
            finally:
                self.claimed.discard(job.id)
            if done is not None:
                break
        if failures:
            raise failures[0]
        return done or Claimed(0, len(await self._ports.repository.parked_jobs(claim.user_id)))

    async def _claim(self, job: Job, claim: Claim, *, others: int) -> Claimed | None:
        """Hand over one picture, first where that was begun before: it may be there already. None if it is not to be
        had.
        """
        current = await self._ports.repository.job(job.id)
        if current is None or current.ended_at is not None or job.id in self._tasks.in_progress:
            return None
        if await self._finished_before(current):
            return Claimed(1, others, earlier=True)
        claimed = await self._ports.repository.claiming(current, claim)
        try:
            return Claimed(1, others) if await self._hand_over(claimed) else None
        except _NOT_SHOWN:
            await self._ports.repository.claiming(claimed, None)  # another picture may come there
            raise

    async def _finished_before(self, job: Job) -> bool:
        if not self._can_finish(job):
            return False
        try:
            return await self._hand_over(job)
        except Undeliverable:
            return False  # that message is gone

    def _can_finish(self, job: Job) -> bool:
        """Whether the place where the picture was being handed over can still be reached."""
        return job.claim is not None and self._ports.clock() < job.claim.at + TOKEN_LIFE

    async def finish_claim(self, job: Job) -> None:
        """After a start: what was being handed over may be there already. Showing it there again changes nothing."""
        tries = 0
        while self._can_finish(job):
            tries += 1
            try:
                await self._hand_over(job)
            except DeliveryDelayed as failure:
                try:
                    await self._retry.pause(failure, tries)
                except Interrupted:
                    return
            except JobFailed as failure:
                log.info("job %s stays kept: %s", job.id, operator.failure(failure))
                return
            else:
                return

    async def _hand_over(self, job: Job) -> bool:
        """Show one picture where its claim says, and charge for it; False if its file is gone."""
        picture = require(job.picture)
        if not picture.path.exists():
            await self.release(job, PictureUnusable("gone from the spool"))
            return False
        message_id = await self._ports.messenger.hand_over(job, picture)
        with suppress(TransitionRefused):  # claimed twice at the same moment: charged once
            ended = await self._retry.commit(
                self._ports.repository.delivered, job, message_id=message_id, now=self._ports.clock()
            )
            self.delivered(replace(ended, claim=job.claim), outcome="claimed")
        await self._ports.spool.remove(job)
        return True

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
