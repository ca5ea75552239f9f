"""Every ending but the delivery: a hold given back, a picture kept for its asker, and whoever has to be told."""

from __future__ import annotations

import logging
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

from bot.domain.errors import (
    DeliveryDelayed,
    Failed,
    Interrupted,
    OutputUnreachable,
    PictureUnusable,
    TransitionRefused,
    Undeliverable,
    Unforeseen,
)
from bot.domain.failure_policy import fetch_again, loudness
from bot.domain.models import Job, Loudness, Picture, State, having
from bot.text import words

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection
    from datetime import datetime

    from bot.domain.models import Verdict
    from bot.domain.protocols import Books, Counters, Delivery, Operator, Store
    from bot.jobs.retry import Patience

    HandOver = Callable[[Job, Picture], Awaitable[int]]

log = logging.getLogger(__name__)

OUTPUT_LIFE = timedelta(hours=24) - timedelta(minutes=5)  # the provider keeps an output 24 hours
PATIENCE = timedelta(hours=24)  # how long an end is tried to be told


def nowhere(_: str) -> None:
    """What is reached in production: nothing happens."""


class Endings:
    """Brings jobs to an end that is not the picture in its place; every one of them in one of these ways."""

    def __init__(
        self,
        *,
        books: Books,
        store: Store,
        delivery: Delivery,
        operator: Operator,
        counters: Counters,
        patience: Patience,
        judge: Callable[[Failed], Verdict],
        clock: Callable[[], datetime],
        reach: Callable[[str], None] = nowhere,
    ) -> None:
        self._books = books
        self._store = store
        self._delivery = delivery
        self._operator = operator
        self._counters = counters
        self._patience = patience
        self._judge = judge
        self._clock = clock
        self._reach = reach
        self.claimed: set[str] = set()  # jobs whose picture is being handed over right now

    async def release(self, job: Job, failure: Failed) -> None:
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
        self._operator.tell(
            loudness(failure, self._judge(failure)), failure.kind, f"job {job.id}: {words.operator(failure)}"
        )
        await self.tell(ended)
        await self._store.drop(ended)

    async def park(self, job: Job, failure: Undeliverable) -> None:
        """Keep a picture that nobody could be given: it is whole and paid for, and its asker may come for it."""
        self._reach("parking")
        try:
            job = await self._on_disk(job)
        except Interrupted:
            return
        except Failed as lost:
            await self.release(job, lost)
            return
        await self._patience.commit(lambda: self._books.parked(job, now=self._clock()))
        self._reach("parked")
        self._operator.tell(Loudness.WARN, failure.kind, f"job {job.id}: {words.operator(failure)}; kept for a claim")
        with suppress(Failed):  # where words are taken though the picture was not
            await self._delivery.tell(job, words.kept(job))

    async def _on_disk(self, job: Job) -> Job:
        """A picture that only memory holds is written down before it has to wait for somebody."""
        picture = having(job.picture)
        if picture.content is None:
            return job
        until = having(job.generated_at) + OUTPUT_LIFE

        async def once() -> Picture:
            try:
                return await self._store.keep(job, _one(having(picture.content)))
            except OSError as error:
                raise OutputUnreachable(f"spool: {type(error).__name__} {error.errno}") from error

        kept = await self._patience.persist(
            once, lambda failure, tries: fetch_again(failure, tries) and self._clock() < until
        )
        return await self._patience.commit(lambda: self._books.spooled(job, kept))

    async def unforeseen(self, job: Job) -> None:
        """A fault of this program must not cost a picture that is paid for: keep it, or fetch it again with the next
        tidying up.
        """
        known: Job | None = await self._patience.commit(lambda: self._books.job(job.id))
        job = known or job
        if job.ended_at is not None:
            return
        if job.state is State.SPOOLED:
            await self.park(job, Undeliverable("a fault of this program"))
        elif job.state is not State.GENERATED:
            await self.release(job, Unforeseen())
        self._operator.tell(Loudness.PAGE, Unforeseen.kind, f"job {job.id}: a fault of this program, see its log")

    async def claim(self, user_id: int, hand_over: HandOver, *, busy: Callable[[], Collection[str]]) -> int:
        """Give a member every picture that is kept for them, but for those of the jobs that `busy` says something is
        being done with right now; returns how many.

        `hand_over` shows one and returns the id of the message that carries it; a picture for which it fails stays
        kept, and the first of its failures is raised when all were tried.
        """
        claimed, failures = 0, list[Exception]()
        for job in await self._books.parked_jobs(user_id):
            if job.id in self.claimed:
                continue
            self.claimed.add(job.id)  # from here on it is not given up
            try:
                current = await self._books.job(job.id)
                if current is not None and current.ended_at is None and job.id not in busy():
                    claimed += await self._handed_over(job, hand_over)
            except Exception as failure:  # noqa: BLE001 - raised below: one picture is not to stand before the others
                failures.append(failure)
            finally:
                self.claimed.discard(job.id)
        if failures:
            raise failures[0]
        return claimed

    async def _handed_over(self, job: Job, hand_over: HandOver) -> int:
        """Hand over one picture; returns 1, or 0 for one that is gone."""
        picture = having(job.picture)
        if not picture.path.exists():
            await self.release(job, PictureUnusable("gone from the spool"))
            return 0
        message_id = await hand_over(job, picture)
        with suppress(TransitionRefused):  # claimed twice at the same moment: charged once
            await self._patience.commit(lambda: self._books.delivered(job, message_id=message_id, now=self._clock()))
            self._counters.ended("claimed")
        await self._store.drop(job)
        return 1

    async def tell(self, job: Job) -> None:
        """Show a released job's end to its asker, for as long as it takes; then it is told."""
        text = words.failure(job)
        until = having(job.ended_at) + PATIENCE
        try:
            await self._patience.persist(
                lambda: self._delivery.tell(job, text),
                lambda failure, _: self._clock() < until and isinstance(failure, DeliveryDelayed),
            )
        except Interrupted:
            return  # the next start tells
        except Failed as failure:
            log.info("job %s: its end could not be told: %s", job.id, words.operator(failure))
        self._reach("telling")
        await self._patience.commit(lambda: self._books.told(job, now=self._clock()))
        self._reach("told")


async def _one(piece: bytes) -> AsyncIterator[bytes]:
    yield piece
