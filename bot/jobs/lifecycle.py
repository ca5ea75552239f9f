"""The use case: a request becomes a job, the job a picture, the picture a message, and only then a charge."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bot.domain import image_problems
from bot.domain.errors import (
    CircuitOpen,
    DeliveryDelayed,
    Interrupted,
    JobFailed,
    NotStarted,
    NotStartedCause,
    OutputUnreachable,
    QuotaExceeded,
    SourceExpired,
    StorageUnavailable,
    Undeliverable,
)
from bot.domain.failure_policy import may_download_again, policy_of
from bot.domain.models import Circuit, Generating, Job, Output, Picture, Queued, Scope, require
from bot.jobs.first_answers import FirstAnswers
from bot.jobs.outcomes import DELIVERY_TIME, OUTPUT_LIFE
from bot.jobs.progress import DownloadProgress, Progress
from bot.jobs.retry import requested_pause

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from bot.domain.errors import InvalidOption
    from bot.domain.models import Requester, Reservation, Status, ThumbnailRequest
    from bot.jobs.admission import Admission
    from bot.jobs.outcomes import Outcomes
    from bot.jobs.ports import Ports
    from bot.jobs.queue import Ticket
    from bot.jobs.retry import Retry
    from bot.jobs.tasks import JobTasks

    Reply = Callable[[Job, Status], Awaitable[int]]

log = logging.getLogger(__name__)

_MOMENT = 0.05  # seconds
_TRANSFERS = 8  # pictures on the wire at once, in either direction


@dataclass(frozen=True, slots=True)
class _Start:
    """What a job begins with: its ticket, the position in its message, and the look at its images."""

    ticket: Ticket
    shown: int
    look: asyncio.Task[InvalidOption | None]

    async def is_ready(self) -> bool:
        """Whether nothing has to be waited for any more, but perhaps the end of the look for a moment."""
        if not self.ticket.position and not self.look.done():
            await asyncio.wait([self.look], timeout=_MOMENT)
        return self.look.done() and not self.ticket.position


class Lifecycle:
    """Accepts requests and runs every job to its delivery; every other ending is in `Outcomes`."""

    def __init__(
        self,
        ports: Ports,
        *,
        admission: Admission,
        outcomes: Outcomes,
        tasks: JobTasks,
        retry: Retry,
        retry_server_errors: bool = False,
    ) -> None:
        self._ports = ports
        self._admission = admission
        self._outcomes = outcomes
        self._tasks = tasks
        self._retry = retry
        self._retry_server_errors = retry_server_errors
        self._tickets: dict[str, Ticket] = {}  # of the jobs that wait or call
        self._transfers = asyncio.Semaphore(_TRANSFERS)
        self._first_answers = FirstAnswers()

    # --- accepting -------------------------------------------------------------------------------------------------

    async def accept(
        self, request: ThumbnailRequest, requester: Requester, reply: Reply, *, parent: Job | None = None
    ) -> Job:
        """Accept a request: a ticket, a hold, a reply. The job then runs in a task of its own.

        `reply` shows the status of a job where its requester sees it and returns the message's id. `parent` is the job
        that this one repeats. Raises `RequestRejected` before anything is stored, and whatever `reply` raises, with the
        hold released.
        """
        with self._first_answers.pending():
            self._ports.sources.check(request)
            reservation = await self._admission.admit(request, requester, parent)
            ticket = await self._enter(requester)
            try:
                with self._tasks.including_this():
                    job = await self._reserve(reservation)
                    return await self._answer(job, ticket, reply)
            except BaseException:
                ticket.leave()
                raise

    async def _enter(self, requester: Requester) -> Ticket:
        try:
            return self._ports.queue.enter(requester.user_id)
        except CircuitOpen as refused:
            if refused.circuit is Circuit.BALANCE:
                await self._ports.refill.refused(requester)
            raise

    async def _reserve(self, reservation: Reservation) -> Job:
        warn = self._ports.notices.budget_used
        try:
            job = await self._ports.repository.reserve(reservation)
        except QuotaExceeded as exceeded:
            if exceeded.allowance.limit.scope is Scope.MONEY:
                warn(exceeded.allowance)
            raise
        self._ports.metrics.held(job)
        self._tasks.start_notice(self._admission.watch_budget(warn), job)
        return job

    async def _answer(self, job: Job, ticket: Ticket, reply: Reply) -> Job:
        self._tickets[job.id] = ticket  # its message can cancel it as soon as Discord shows it
        look = asyncio.create_task(self._look(job), name=f"look-{job.id}")
        try:
            position = ticket.position  # what the message will show; the turn may come while it is sent
            job = await self._acknowledge(job, _Start(ticket, position, look), reply)
        except BaseException:
            del self._tickets[job.id]
            look.cancel()
            raise
        self._tasks.start(self.run(job, _Start(ticket, position, look)), job)
        return job

    async def _look(self, job: Job) -> InvalidOption | None:
        await self._first_answers.give_way()
        return await self._ports.sources.look(job.request)

    async def _keep_sources(self, job: Job) -> None:
        await asyncio.sleep(_MOMENT)  # the call that has just begun goes first
        await self._first_answers.give_way()
        await self._ports.sources.keep(job)

    def cancel(self, job_id: str) -> bool:
        """Take a job out of the queue; False if it has started, or is no job that waits."""
        ticket = self._tickets.get(job_id)
        return ticket is not None and ticket.dismiss(NotStartedCause.CANCELLED)

    async def _acknowledge(self, job: Job, start: _Start, reply: Reply) -> Job:
        """Reply, and record the message; if the job need not wait, one commit records it together with `sending`. A
        message that a kill leaves unrecorded is found by the job's id in it.
        """
        try:
            shown = Queued(start.shown) if start.shown else Generating(self._ports.clock())
            message_id = await reply(job, shown)
            if await start.is_ready():
                return replace(job, message_id=message_id)
            return await self._ports.repository.acked(job, message_id=message_id)
        except BaseException:
            self._tasks.start(self._outcomes.release(job, NotStarted()), job)
            raise

    # --- the straight line -----------------------------------------------------------------------------------------

    async def run(self, job: Job, start: _Start | None = None) -> None:
        """Run a job to its end: from its reply with a `start`, else from the paid picture on."""
        self._ports.metrics.started()
        try:
            job = await self._generate(job, start) if start is not None else await self._found(job)
            if job.picture is None:
                job = replace(job, picture=await self._fetch_until_whole(job))
            await self._deliver(job)
        except Interrupted:
            log.info("job %s goes on after the next start", job.id)
        except Undeliverable as failure:
            await self._outcomes.park(job, failure)
        except JobFailed as failure:
            await self._outcomes.release(job, failure)
        except StorageUnavailable:
            await self._outcomes.release(job, NotStarted())
        except Exception:
            log.exception("job %s hit an internal error", job.id)
            await self._outcomes.internal_error(job)

    async def _generate(self, job: Job, start: _Start) -> Job:
        """Wait for the turn and make the paid call, with the state committed before and after."""
        ticket = start.ticket
        progress = Progress(job, messenger=self._ports.messenger, clock=self._ports.clock)
        try:
            await self._check_images(start.look)
            async with progress.turn(ticket, start.shown):
                request = await self._prepare(job)
                job = await self._ports.repository.sending(job, now=self._ports.clock())
                # Not earlier: a job that ends before its call needs no file.
                self._tasks.start_beside(self._keep_sources(job), job)
                output = await self._call(request, ticket)
        finally:
            del self._tickets[job.id]
            ticket.leave()
        return await self._retry.commit(self._ports.repository.generated, job, output, now=self._ports.clock())

    async def _check_images(self, look: asyncio.Task[InvalidOption | None]) -> None:
        """Raises `NotStarted` if the look has found something. A fault of the look itself costs nobody the request."""
        try:
            await asyncio.wait([look])
        finally:
            look.cancel()  # unless it has ended, this task has been cancelled
        if (fault := look.exception()) is not None:
            log.error("the images could not be looked at", exc_info=fault)
        elif (problem := look.result()) is not None:
            raise image_problems.not_started(problem)

    async def _prepare(self, job: Job) -> ThumbnailRequest:
        try:
            return await self._ports.sources.prepare(job.request)
        except SourceExpired:
            raise NotStarted(NotStartedCause.SOURCE_EXPIRED) from None

    async def _call(self, request: ThumbnailRequest, ticket: Ticket) -> Output:
        """The paid call; repeated only if its policy says that the one before did no work."""
        preset = request.persona is not None or request.style is not None
        tries = 0
        while True:
            tries += 1
            try:
                output = await self._ports.provider.create(request)
            except JobFailed as failure:
                policy = policy_of(failure, retry_server_errors=self._retry_server_errors, preset=preset)
                ticket.failed(policy, retry_after=requested_pause(failure))
                if tries > policy.retries:
                    raise
                await self._pause_before_call(failure, tries)
            else:
                ticket.succeeded()
                return output

    async def _pause_before_call(self, failure: JobFailed, tries: int) -> None:
        try:
            await self._retry.pause(failure, tries)
        except Interrupted:
            raise failure from None  # nothing is in progress at the provider: this is how the job ended

    async def _found(self, job: Job) -> Job:
        """The job with the picture that an earlier process has left in the spool, if it has."""
        if job.picture is not None and job.picture.path.exists():
            return job
        return replace(job, picture=await self._ports.spool.find(job))

    async def _fetch_until_whole(self, job: Job) -> Picture:
        """Fetch the output onto disk, or into memory if the disk is full. The database need not know: as long as the
        provider has the output, it can be fetched again.
        """
        expires = require(job.generated_at) + OUTPUT_LIFE
        progress = DownloadProgress(job, messenger=self._ports.messenger, clock=self._ports.clock)
        tries = 0
        async with progress.shown():
            while True:
                tries += 1
                try:
                    async with self._transfers:
                        return await self._fetch(job)
                except JobFailed as failure:
                    if not may_download_again(failure, tries) or self._ports.clock() >= expires:
                        raise
                    await self._retry.pause(failure, tries, announce=progress.pausing)

    async def _fetch(self, job: Job) -> Picture:
        address = require(job.output).url
        try:
            async with aclosing(self._ports.downloader.fetch(address)) as pieces:
                return await self._ports.spool.write(job, pieces)
        except OSError as error:
            observed = f"spool: {type(error).__name__} {error.errno}"
            self._ports.notices.spool_unwritable(observed)
        try:
            async with aclosing(self._ports.downloader.fetch(address)) as pieces:
                return await self._ports.spool.hold_in_memory(job, pieces)
        except MemoryError:
            raise OutputUnreachable(observed) from None

    async def _deliver(self, job: Job) -> None:
        """Show the picture; once Discord has confirmed the message, the hold becomes a charge."""
        message_id = await self._show(job)
        ended = await self._retry.commit(
            self._ports.repository.delivered, job, message_id=message_id, now=self._ports.clock()
        )
        self._outcomes.delivered(ended)
        with suppress(OSError):  # the next sweep removes it
            await self._ports.spool.remove(job)
        await self._ports.messenger.add_again_reaction(job, message_id)

    async def _show(self, job: Job) -> int:
        picture = require(job.picture)
        until = require(job.generated_at) + DELIVERY_TIME
        tries = 0
        while True:
            tries += 1
            try:
                async with self._transfers:
                    return await self._ports.messenger.deliver(job, picture)
            except DeliveryDelayed as failure:
                if self._ports.clock() >= until:
                    raise Undeliverable(failure.observed) from None  # whole and paid for: it is kept
                await self._retry.pause(failure, tries)
