"""The use case, top to bottom: a request becomes a job, the job a picture, the picture a message, and then a charge."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing, suppress
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from bot.domain.errors import (
    BooksUnavailable,
    Cancelled,
    DeliveryDelayed,
    Failed,
    Interrupted,
    NotStarted,
    OutcomeUnknown,
    OutputUnreachable,
    Restarting,
    SourceExpired,
    Undeliverable,
)
from bot.domain.failure_policy import fetch_again, judge
from bot.domain.models import Job, Loudness, Output, Picture, State, having
from bot.jobs.outcomes import OUTPUT_LIFE, PATIENCE, Endings, nowhere
from bot.jobs.progress import Progress
from bot.jobs.retry import Patience, asked_pause
from bot.jobs.tasks import Underway
from bot.text import words

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from datetime import datetime

    from bot.domain.models import Allowance, Asker, ThumbnailRequest, Verdict
    from bot.domain.protocols import (
        Admission,
        Books,
        Counters,
        Delivery,
        Given,
        Operator,
        Place,
        Provider,
        Source,
        Store,
    )
    from bot.domain.quota import Rules

    Answer = Callable[[Job, str, bool], Awaitable[int]]
    HandOver = Callable[[Job, Picture], Awaitable[int]]
    Take = Callable[[AsyncGenerator[bytes, None]], Awaitable[Picture]]

log = logging.getLogger(__name__)

T = TypeVar("T")

CLAIM_LIFE = timedelta(days=7)  # how long a picture waits for its asker
_LAST_WORDS = 10.0  # seconds for telling those whose jobs a stop has ended


class Thumbnails:
    """Takes requests in and sees every one of them to its one ending."""

    def __init__(
        self,
        *,
        admission: Admission,
        books: Books,
        originals: Given,
        provider: Provider,
        source: Source,
        store: Store,
        delivery: Delivery,
        operator: Operator,
        counters: Counters,
        rules: Rules,
        clock: Callable[[], datetime],
        transfers: int = 16,
        retry_server_errors: bool = False,
        restored: bool = False,
        reach: Callable[[str], None] = nowhere,
    ) -> None:
        self._admission = admission
        self._books = books
        self._originals = originals
        self._provider = provider
        self._source = source
        self._store = store
        self._delivery = delivery
        self._operator = operator
        self._counters = counters
        self._rules = rules
        self._clock = clock
        self._transfers = asyncio.Semaphore(transfers)  # pictures on the wire at once, in either direction
        self._retry_server_errors = retry_server_errors
        self._reach = reach  # called at every point between two effects: tests end the process there
        self._restored = restored  # the books are an older copy: what they call under way may be long delivered
        self._places: dict[str, Place] = {}  # of the jobs that wait or call
        self._underway = Underway()
        self._patience = Patience(on_unavailable=self._page_books)
        self._endings = Endings(
            books=books,
            store=store,
            delivery=delivery,
            operator=operator,
            counters=counters,
            patience=self._patience,
            judge=self._judge,
            clock=clock,
            reach=reach,
        )
        self._recovered = False

    # --- the straight line -----------------------------------------------------------------------------------------

    async def accept(
        self, request: ThumbnailRequest, asker: Asker, answer: Answer, *, parent: Job | None = None
    ) -> Job:
        """Take a request in: a place, a hold, an answer; the rest happens by itself.

        `answer` posts the text of a job where its asker sees it, with a way to cancel it while it waits, and returns
        the message's id. `parent` is the job it is made again from. Raises `Refused` before anything is stored, and
        whatever `answer` raises, with the hold released.
        """
        self._originals.check(request)
        place = self._admission.enter(asker.user_id)
        try:
            with self._underway.including_this():
                self._reach("accepting")
                job = await self._books.reserve(
                    request,
                    asker,
                    cost=self._rules.cost(request.model),
                    limits=self._rules.limits(asker.user_id, asker.asked_at),
                    now=self._clock(),
                    parent_id=None if parent is None else parent.id,
                )
                self._reach("reserved")
                position = place.position  # what the member reads; their turn may come while they do
                job = await self._acknowledge(job, position, answer)
                self._underway.start(self._see_through(job, place, shown=position), job)
                self._underway.start(self._originals.keep(job), job)
                return job
        except BooksUnavailable as unavailable:
            place.leave()
            self._page_books(unavailable)
            raise
        except BaseException:
            place.leave()
            raise

    async def claim(self, user_id: int, hand_over: HandOver) -> int:
        """Give a member every picture that is kept for them; returns how many. See `Endings.claim`."""
        return await self._endings.claim(user_id, hand_over, busy=lambda: self._underway.jobs)

    def cancel(self, job_id: str) -> bool:
        """Take a job out of the line; False when it has started, or is no job that waits."""
        place = self._places.get(job_id)
        return place is not None and place.send_away(Cancelled())

    async def allowances(self, user_id: int) -> list[Allowance]:
        """What a member may still use, per limit."""
        return await self._books.allowances(self._rules.limits(user_id, self._clock()))

    async def _acknowledge(self, job: Job, position: int, answer: Answer) -> Job:
        text = words.queued(job, position) if position else words.generating(job, self._clock())
        try:
            message_id = await answer(job, text, position > 0)
            self._reach("answered")
            return await self._books.acked(job, message_id=message_id)
        except BaseException:
            self._underway.start(self._endings.release(job, NotStarted()), job)
            raise

    async def _see_through(self, job: Job, place: Place | None = None, *, shown: int = 0) -> None:
        """Bring a job to its end: from the answered command with a `place` in line, else from the paid picture on."""
        self._counters.started()
        try:
            if place is not None:
                job = await self._generate(job, place, shown=shown)
            if job.picture is None or not job.picture.path.exists():
                job = await self._collect(job)
            await self._deliver(job)
        except Interrupted:
            log.info("job %s goes on after the next start", job.id)
        except Undeliverable as failure:
            await self._endings.park(job, failure)
        except Failed as failure:
            await self._endings.release(job, failure)
        except BooksUnavailable as unavailable:
            await self._endings.release(job, NotStarted(unavailable))
        except Exception:
            log.exception("job %s met an unforeseen fault", job.id)
            await self._endings.unforeseen(job)

    async def _generate(self, job: Job, place: Place, *, shown: int) -> Job:
        self._places[job.id] = place
        try:
            async with Progress(job, delivery=self._delivery, clock=self._clock).turn(place, shown):
                self._reach("acked")
                request = await self._prepared(job)
                job = await self._books.sending(job, now=self._clock())
                self._reach("sending")
                output = await self._call(request, place)
        finally:
            del self._places[job.id]
            place.leave()
        self._reach("created")
        return await self._patience.commit(lambda: self._books.generated(job, output, now=self._clock()))

    async def _prepared(self, job: Job) -> ThumbnailRequest:
        try:
            return await self._originals.prepared(job.request)
        except SourceExpired as expired:
            raise NotStarted(expired) from None

    async def _call(self, request: ThumbnailRequest, place: Place) -> Output:
        """The paid call; made again only where `verdicts` proves that the one before did no work."""

        async def once() -> Output:
            try:
                return await self._provider.create(request)
            except Failed as failure:
                place.failed(self._judge(failure), retry_after=asked_pause(failure))
                raise

        try:
            output = await self._patience.persist(once, self._another_call)
        except Interrupted as stop:
            raise stop.failure from None  # nothing is under way at the provider: this is how it ended
        place.succeeded()
        return output

    async def _collect(self, job: Job) -> Job:
        """Fetch the output onto disk, patiently: it is paid for and stays a day. Where the disk takes nothing, memory
        holds it until it is delivered; the books then know only that it was made.
        """
        output = having(job.output)
        until = having(job.generated_at) + OUTPUT_LIFE

        async def once() -> Picture:
            async with self._transfers:
                try:
                    return await self._fetched(output, lambda pieces: self._store.keep(job, pieces))
                except OSError as error:
                    disk = f"spool: {type(error).__name__} {error.errno}"
                    self._operator.tell(Loudness.PAGE, "spool", disk)
                try:
                    return await self._fetched(output, lambda pieces: self._store.hold(job, pieces))
                except MemoryError:
                    raise OutputUnreachable(disk) from None

        self._reach("generated")
        picture = await self._patience.persist(
            once, lambda failure, tries: fetch_again(failure, tries) and self._clock() < until
        )
        self._reach("kept")
        if picture.content is not None:
            return replace(job, picture=picture)
        return await self._patience.commit(lambda: self._books.spooled(job, picture))

    async def _fetched(self, output: Output, take: Take) -> Picture:
        async with aclosing(self._source.fetch(output.url)) as pieces:
            return await take(pieces)

    async def _deliver(self, job: Job) -> None:
        picture = having(job.picture)
        until = having(job.generated_at) + PATIENCE

        async def once() -> int:
            async with self._transfers:
                return await self._delivery.deliver(job, picture)

        self._reach("spooled")
        message_id = await self._patience.persist(
            once, lambda failure, _: self._clock() < until and isinstance(failure, DeliveryDelayed)
        )
        self._reach("shown")
        await self._patience.commit(lambda: self._books.delivered(job, message_id=message_id, now=self._clock()))
        self._reach("delivered")
        self._counters.ended("delivered")
        with suppress(OSError):  # the next sweep takes it
            await self._store.drop(job)
        self._reach("dropped")
        await self._delivery.invite(job, message_id)

    # --- starting and stopping ---------------------------------------------------------------------------------------

    async def recover(self) -> None:
        """After a start: end what cannot go on, go on with what can, tell what was not told. Once in a process."""
        if self._recovered:
            return
        self._reach("recovering")
        untold = await self._books.untold_jobs()
        going_on = await self._settle(keep=not self._restored)
        self._recovered = True  # not before: what could not be read is read by the next connection
        for job in untold:
            self._underway.start(self._endings.tell(job), job)
        for job in going_on:
            self._underway.start(self._see_through(job), job)
            self._underway.start(self._originals.keep(job), job)
        self._reach("recovered")
        log.info("recovered: %d jobs go on, %d ends to tell", len(going_on), len(untold))
        await self.tidy()

    async def tidy(self) -> None:
        """Take up what a fault left lying, release what nobody came for in a week, and remove files that no job needs.
        Call it now and then.
        """
        now = self._clock()
        before = self._underway.jobs
        jobs = await self._books.open_jobs()
        for job in jobs:
            if job.id in before or job.id in self._underway.jobs or job.id in self._endings.claimed:
                continue
            if job.parked_at is not None and job.parked_at + CLAIM_LIFE < now:
                self._underway.start(self._endings.release(job, Undeliverable("nobody came for it")), job)
            elif job.parked_at is None and job.state in (State.GENERATED, State.SPOOLED):
                self._underway.start(self._see_through(job), job)
        removed = await self._store.sweep(now=now, needed=frozenset(job.id for job in jobs))
        if removed:
            log.info("%d files removed from the spool", removed)

    def stop_accepting(self) -> None:
        """Refuse what comes, send away what waits."""
        self._patience.end()
        self._admission.close()

    async def close(self, *, grace: float) -> None:
        """Finish what is under way within `grace` seconds, then leave the rest as the next start expects it."""
        self.stop_accepting()
        if self._underway:
            log.info("finishing %d jobs, for at most %.0f s", len(self._underway), grace)
        await self.idle(grace)
        await self._underway.cancel()
        await self._settle(keep=True)
        await self.idle(_LAST_WORDS)

    async def idle(self, seconds: float) -> None:
        """Wait until no job is under way, for at most `seconds`."""
        await self._underway.idle(seconds)

    async def _settle(self, *, keep: bool) -> list[Job]:
        """Release every job that nobody may continue; returns those that go on: their picture is paid for."""
        going_on = []
        for job in await self._books.open_jobs():
            if keep and job.parked_at is not None:
                continue
            if keep and job.state in (State.GENERATED, State.SPOOLED):
                going_on.append(job)
            elif job.state is State.SENDING:
                self._underway.start(
                    self._endings.release(job, OutcomeUnknown("the program stopped before the answer")), job
                )
            else:
                self._underway.start(self._endings.release(job, NotStarted(Restarting())), job)
        return going_on

    # --- what a failure means --------------------------------------------------------------------------------------

    def _page_books(self, unavailable: BooksUnavailable) -> None:
        self._operator.tell(Loudness.PAGE, "books", words.books_unavailable(unavailable))

    def _judge(self, failure: Failed) -> Verdict:
        return judge(failure, retry_server_errors=self._retry_server_errors)

    def _another_call(self, failure: Failed, tries: int) -> bool:
        return tries <= self._judge(failure).retries
