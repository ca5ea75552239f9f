"""The use case, top to bottom: a request becomes a job, the job a picture, the picture a message, and then a charge."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing, suppress
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from bot import words
from bot.errors import (
    BooksUnavailable,
    Cancelled,
    DeliveryDelayed,
    Failed,
    Interrupted,
    NotStarted,
    OutcomeUnknown,
    OutputGone,
    OutputUnreachable,
    PictureUnusable,
    Restarting,
    SourceExpired,
    TransitionRefused,
    Undeliverable,
    Unforeseen,
)
from bot.model import Job, Loudness, Output, Picture, State
from bot.patience import Patience, asked_pause
from bot.progress import Progress
from bot.underway import Underway
from bot.verdicts import judge

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
    from datetime import datetime

    from bot.model import Allowance, Asker, ThumbnailRequest, Verdict
    from bot.ports import Admission, Books, Counters, Delivery, Given, Operator, Place, Provider, Source, Store
    from bot.quota import Rules

    Answer = Callable[[Job, str, bool], Awaitable[int]]
    HandOver = Callable[[Job, Picture], Awaitable[int]]
    Take = Callable[[AsyncGenerator[bytes, None]], Awaitable[Picture]]

log = logging.getLogger(__name__)

T = TypeVar("T")

OUTPUT_LIFE = timedelta(hours=24) - timedelta(minutes=5)  # the provider keeps an output 24 hours
CLAIM_LIFE = timedelta(days=7)  # how long a picture waits for its asker
PATIENCE = timedelta(hours=24)  # how long an end is tried to be told
_LAST_WORDS = 10.0  # seconds for telling those whose jobs a stop has ended


def nowhere(_: str) -> None:
    """What is reached in production: nothing happens."""


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
            self._underway.start(self._release(job, NotStarted()), job)
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
            await self._park(job, failure)
        except Failed as failure:
            await self._release(job, failure)
        except BooksUnavailable as unavailable:
            await self._release(job, NotStarted(unavailable))
        except Exception:
            log.exception("job %s met an unforeseen fault", job.id)
            await self._end_unforeseen(job)

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
        output = _having(job.output)
        until = _having(job.generated_at) + OUTPUT_LIFE

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
        picture = await self._patience.persist(once, lambda failure, tries: self._another_fetch(failure, tries, until))
        self._reach("kept")
        if picture.content is not None:
            return replace(job, picture=picture)
        return await self._patience.commit(lambda: self._books.spooled(job, picture))

    async def _fetched(self, output: Output, take: Take) -> Picture:
        async with aclosing(self._source.fetch(output.url)) as pieces:
            return await take(pieces)

    async def _deliver(self, job: Job) -> None:
        picture = _having(job.picture)
        until = _having(job.generated_at) + PATIENCE

        async def once() -> int:
            async with self._transfers:
                return await self._delivery.deliver(job, picture)

        self._reach("spooled")
        message_id = await self._patience.persist(once, lambda failure, _: self._clock() < until and _delayed(failure))
        self._reach("shown")
        await self._patience.commit(lambda: self._books.delivered(job, message_id=message_id, now=self._clock()))
        self._reach("delivered")
        self._counters.ended("delivered")
        await self._store.drop(job)
        self._reach("dropped")
        await self._delivery.invite(job, message_id)

    # --- any other ending --------------------------------------------------------------------------------------------

    async def _release(self, job: Job, failure: Failed) -> None:
        """Give the hold back, tell the operator, then tell the member for as long as it takes."""
        request_id = getattr(failure, "request_id", None)
        self._reach("releasing")
        try:
            ended = await self._patience.commit(
                lambda: self._books.released(job, reason=failure.reason, request_id=request_id, now=self._clock())
            )
        except TransitionRefused:
            log.warning("job %s had ended already", job.id)
            return
        self._reach("released")
        log.info("job %s released: %s", job.id, words.operator(failure))
        self._counters.ended(failure.kind)
        self._operator.tell(self._loudness(failure), failure.kind, f"job {job.id}: {words.operator(failure)}")
        await self._tell(ended, words.failure(ended))
        await self._store.drop(ended)

    async def _park(self, job: Job, failure: Undeliverable) -> None:
        """Keep a picture that nobody could be given: it is whole and paid for, and its asker may come for it."""
        self._reach("parking")
        try:
            job = await self._on_disk(job)
        except Interrupted:
            return
        except Failed as lost:
            await self._release(job, lost)
            return
        await self._patience.commit(lambda: self._books.parked(job, now=self._clock()))
        self._reach("parked")
        self._operator.tell(Loudness.WARN, failure.kind, f"job {job.id}: {words.operator(failure)}; kept for a claim")
        with suppress(Failed):  # where words are taken though the picture was not
            await self._delivery.tell(job, words.kept(job))

    async def _on_disk(self, job: Job) -> Job:
        """A picture that only memory holds is written down before it has to wait for somebody."""
        picture = _having(job.picture)
        if picture.content is None:
            return job
        until = _having(job.generated_at) + OUTPUT_LIFE

        async def once() -> Picture:
            try:
                return await self._store.keep(job, _one(_having(picture.content)))
            except OSError as error:
                raise OutputUnreachable(f"spool: {type(error).__name__} {error.errno}") from error

        kept = await self._patience.persist(once, lambda failure, tries: self._another_fetch(failure, tries, until))
        return await self._patience.commit(lambda: self._books.spooled(job, kept))

    async def _end_unforeseen(self, job: Job) -> None:
        """A fault of this program must not cost a picture that is paid for: keep it, or fetch it again with the next
        tidying up.
        """
        job = await self._books.job(job.id) or job
        if job.state is State.SPOOLED:
            await self._park(job, Undeliverable("a fault of this program"))
        elif job.state is not State.GENERATED:
            await self._release(job, Unforeseen())
        self._operator.tell(Loudness.PAGE, Unforeseen.kind, f"job {job.id}: a fault of this program, see its log")

    async def claim(self, user_id: int, hand_over: HandOver) -> int:
        """Give a member every picture that is kept for them; returns how many.

        `hand_over` shows one and returns the id of the message that carries it; what it raises stops the claim, with
        the pictures not yet handed over still kept.
        """
        claimed = 0
        for job in await self._books.parked_jobs(user_id):
            picture = _having(job.picture)
            if not picture.path.exists():
                await self._release(job, PictureUnusable("gone from the spool"))
                continue
            message_id = await hand_over(job, picture)
            with suppress(TransitionRefused):  # claimed twice at the same moment: charged once
                await self._books.delivered(job, message_id=message_id, now=self._clock())
                self._counters.ended("claimed")
            await self._store.drop(job)
            claimed += 1
        return claimed

    async def _tell(self, job: Job, text: str) -> None:
        until = _having(job.ended_at) + PATIENCE
        try:
            await self._patience.persist(
                lambda: self._delivery.tell(job, text), lambda failure, _: self._clock() < until and _delayed(failure)
            )
        except Interrupted:
            return  # the next start tells
        except Failed as failure:
            log.info("job %s: its end could not be told: %s", job.id, words.operator(failure))
        self._reach("telling")
        await self._books.told(job, now=self._clock())
        self._reach("told")

    # --- starting and stopping ---------------------------------------------------------------------------------------

    async def recover(self) -> None:
        """After a start: end what cannot go on, go on with what can, tell what was not told. Once in a process."""
        if self._recovered:
            return
        self._recovered = True
        self._reach("recovering")
        untold = await self._books.untold_jobs()
        going_on = await self._settle(keep=not self._restored)
        for job in untold:
            self._underway.start(self._tell(job, words.failure(job)), job)
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
            if job.id in before or job.id in self._underway.jobs:
                continue
            if job.parked_at is not None and job.parked_at + CLAIM_LIFE < now:
                self._underway.start(self._release(job, Undeliverable("nobody came for it")), job)
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
                self._underway.start(self._release(job, OutcomeUnknown("the program stopped before the answer")), job)
            else:
                self._underway.start(self._release(job, NotStarted(Restarting())), job)
        return going_on

    # --- what a failure means --------------------------------------------------------------------------------------

    def _page_books(self, unavailable: BooksUnavailable) -> None:
        self._operator.tell(Loudness.PAGE, "books", words.books_unavailable(unavailable))

    def _judge(self, failure: Failed) -> Verdict:
        return judge(failure, retry_server_errors=self._retry_server_errors)

    def _another_call(self, failure: Failed, tries: int) -> bool:
        return tries <= self._judge(failure).retries

    def _another_fetch(self, failure: Failed, tries: int, until: datetime) -> bool:
        if isinstance(failure, OutputGone):
            return tries < 3  # noqa: PLR2004 - a moment's inconsistency of a CDN, not more
        if isinstance(failure, PictureUnusable):
            return tries < 2  # noqa: PLR2004 - damaged on the way, perhaps
        return isinstance(failure, OutputUnreachable) and self._clock() < until

    def _loudness(self, failure: Failed) -> Loudness:
        match failure:
            case OutputUnreachable() | PictureUnusable() | Unforeseen():
                return Loudness.PAGE  # a paid picture did not arrive
            case Undeliverable():
                return Loudness.WARN
            case _:
                verdict = self._judge(failure)
                return verdict.loudness if verdict.pause is None else Loudness.COUNT  # its circuit has told already


async def _one(piece: bytes) -> AsyncIterator[bytes]:
    yield piece


def _delayed(failure: Failed) -> bool:
    return isinstance(failure, DeliveryDelayed)


def _having(value: T | None) -> T:
    """A column that this state of a job always has; the database's checks say so."""
    if value is None:
        raise AssertionError("a job without the facts its state promises")
    return value
