"""The ledger with a second leg: what has happened already is written to a journal while the database takes nothing.

A job then goes on from what is believed of it; new ones are not taken. Records are carried over into the database as
soon as it takes them, in their order, or by the next start.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from contextlib import suppress
from contextvars import Context
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from bot.domain.errors import BooksUnavailable, TransitionRefused
from bot.domain.models import Job, Output, Picture
from bot.storage import journal_records

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bot.domain.models import Allowance, Asker, Limit, ThumbnailRequest
    from bot.storage.journal import Ballast, Journal, Record
    from bot.storage.ledger import Ledger

log = logging.getLogger(__name__)

_PROBE = timedelta(seconds=30)  # between two looks whether the disk has room again
_LONGEST_PAUSE = 5.0  # seconds between two tries to carry over


class JournaledBooks:
    """Fits `ports.Books`. `on_unavailable` hears of every write the database refused."""

    def __init__(
        self,
        ledger: Ledger,
        journal: Journal,
        ballast: Ballast,
        *,
        clock: Callable[[], datetime],
        on_unavailable: Callable[[BooksUnavailable], None],
    ) -> None:
        self._ledger = ledger
        self._journal = journal
        self._ballast = ballast
        self._clock = clock
        self._on_unavailable = on_unavailable
        self._owed: list[Record] = []
        self._believed: dict[str, Job] = {}  # jobs with records that are owed
        self._writing: set[asyncio.Task[Job]] = set()
        self._facts: dict[str, str] = {}  # that the database has not taken
        self._journalling = asyncio.Lock()  # a record is not to be cleared away while it is written
        self._carrier: asyncio.Task[None] | None = None
        self._probed = datetime.min.replace(tzinfo=UTC)

    async def replay(self) -> int:
        """After a start: carry over what the last process left in the journal; returns how many records that were.

        Where the disk does not even take those, they stay owed, and are carried over when it does.
        """
        left = await asyncio.to_thread(self._journal.records)
        self._owed = list(left)
        for attempt in range(2):
            try:
                await self._pay()
                await asyncio.to_thread(self._ballast.lay)  # last: what is owed needs the room more
                break
            except (BooksUnavailable, OSError) as error:
                await self._make_room()
                if attempt:
                    self._on_unavailable(BooksUnavailable(str(error)))
                    await self._believe(left)
        return len(left)

    async def _believe(self, left: Sequence[Record]) -> None:
        for record in left:
            job = self._believed.get(record["job"]) or await self._ledger.job(record["job"])
            if job is not None:
                self._believed[job.id] = journal_records.after(job, record, self._ledger.spool)
        self._start_carrier()

    async def close(self) -> None:
        """Try once more; what is owed even then stays in the journal."""
        await self._written()
        if self._carrier is not None:
            self._carrier.cancel()
            await asyncio.wait([self._carrier])
        with suppress(BooksUnavailable, OSError):
            await self._pay()

    # --- before anything has happened: the database or nothing -------------------------------------------------------

    async def reserve(
        self,
        request: ThumbnailRequest,
        asker: Asker,
        *,
        cost: int,
        limits: Sequence[Limit],
        now: datetime,
        parent_id: str | None = None,
    ) -> Job:
        """As the ledger does; raises `BooksUnavailable` too while anything is owed or the disk has no room."""
        if self._owed or not await self._has_room():
            if self._owed:
                self._start_carrier()
            raise BooksUnavailable("the disk is full")
        try:
            return await self._ledger.reserve(request, asker, cost=cost, limits=limits, now=now, parent_id=parent_id)
        except BooksUnavailable:
            await self._make_room()
            raise

    async def acked(self, job: Job, *, message_id: int) -> Job:
        return await self._ledger.acked(job, message_id=message_id)

    async def sending(self, job: Job, *, now: datetime) -> Job:
        return await self._ledger.sending(job, now=now)

    # --- what has happened: the database or the journal --------------------------------------------------------------

    async def generated(self, job: Job, output: Output, *, now: datetime) -> Job:
        return await self._write(job, "generated", now, url=output.url, request_id=output.request_id)

    async def spooled(self, job: Job, picture: Picture) -> Job:
        return await self._write(job, "spooled", self._clock(), picture=journal_records.facts(picture))

    async def parked(self, job: Job, *, now: datetime) -> Job:
        return await self._write(job, "parked", now)

    async def delivered(self, job: Job, *, message_id: int, now: datetime) -> Job:
        return await self._write(job, "delivered", now, message_id=message_id)

    async def released(self, job: Job, *, reason: str, request_id: str | None, now: datetime) -> Job:
        return await self._write(job, "released", now, reason=reason, request_id=request_id)

    async def told(self, job: Job, *, now: datetime) -> None:
        await self._write(job, "told", now)

    async def _write(self, job: Job, step: str, now: datetime, **facts: Any) -> Job:
        """Write what has happened, to its end even if the caller is cancelled: nobody else knows of it.

        Raises `TransitionRefused`, and `BooksUnavailable` if the journal is of no use either.
        """
        record = {"job": job.id, "step": step, "at": now.timestamp(), **facts}
        writing = asyncio.create_task(self._put_down(job, record))
        self._writing.add(writing)
        writing.add_done_callback(self._writing.discard)
        return await asyncio.shield(writing)

    async def _put_down(self, job: Job, record: Record) -> Job:
        if job.id not in self._believed:
            try:
                return await self._apply(record, job)
            except BooksUnavailable as unavailable:
                await self._make_room()
                self._on_unavailable(unavailable)
        async with self._journalling:
            current = self._believed.get(job.id, job)
            if current.state not in journal_records.FROM[record["step"]]:
                raise TransitionRefused(job.id, "/".join(journal_records.FROM[record["step"]]))
            try:
                await asyncio.to_thread(self._journal.append, record)
            except OSError as error:
                raise BooksUnavailable(f"the journal too ({type(error).__name__})") from error
            believed = journal_records.after(current, record, self._ledger.spool)
            self._owed.append(record)
            self._believed[job.id] = believed
        self._start_carrier()
        return believed

    async def _written(self) -> None:
        """Until everything begun so far is written down."""
        if self._writing:
            await asyncio.wait(set(self._writing))

    # --- carrying over -----------------------------------------------------------------------------------------------

    def _start_carrier(self) -> None:
        if self._carrier is None or self._carrier.done():
            self._carrier = asyncio.create_task(self._carry_all_over(), name="journal-carrier", context=Context())

    async def _carry_all_over(self) -> None:
        pause = 0.2
        while self._owed or self._believed:
            try:
                await self._pay()
            except (BooksUnavailable, OSError):
                log.debug("the database does not take what is owed")
            except Exception:
                log.exception("what is owed to the database cannot be carried over; tried again")
            else:
                continue
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _pay(self) -> None:
        """Carry over everything that is owed; raises `BooksUnavailable`."""
        while self._owed:
            await self._carry_over(self._owed[0])
            del self._owed[0]
        async with self._journalling:
            if not self._owed:
                await asyncio.to_thread(self._journal.clear)
                self._believed.clear()

    async def _carry_over(self, record: Record) -> None:
        """Apply one record, perhaps a second time: then the state it starts from is gone."""
        job = await self._ledger.job(record["job"])
        if job is None:
            log.error("the journal speaks of job %s, which the database does not know", record["job"])
            return
        try:
            await self._apply(record, job)
        except (TransitionRefused, sqlite3.IntegrityError) as refusal:
            log.info("job %s: %s was carried over before: %s", job.id, record["step"], refusal)

    async def _apply(self, record: Record, job: Job) -> Job:
        ledger, at = self._ledger, journal_records.moment(record)
        match record["step"]:
            case "generated":
                return await ledger.generated(job, Output(record["url"], record["request_id"]), now=at)
            case "spooled":
                return await ledger.spooled(job, journal_records.picture(record, ledger.spool))
            case "parked":
                return await ledger.parked(job, now=at)
            case "delivered":
                return await ledger.delivered(job, message_id=record["message_id"], now=at)
            case "released":
                return await ledger.released(job, reason=record["reason"], request_id=record["request_id"], now=at)
            case _:
                await ledger.told(job, now=at)
                return job

    # --- room on the disk --------------------------------------------------------------------------------------------

    async def _make_room(self) -> None:
        await asyncio.to_thread(self._ballast.throw_off)
        self._probed = self._clock()

    async def _has_room(self) -> bool:
        if self._ballast.is_laid:
            return True
        if self._clock() < self._probed + _PROBE:
            return False
        self._probed = self._clock()
        return await asyncio.to_thread(self._ballast.lay)

    # --- reading -----------------------------------------------------------------------------------------------------

    async def job(self, job_id: str) -> Job | None:
        return self._believed.get(job_id) or await self._ledger.job(job_id)

    async def open_jobs(self) -> list[Job]:
        await self._written()
        return [job for job in self._as_believed(await self._ledger.open_jobs()) if job.ended_at is None]

    async def parked_jobs(self, user_id: int) -> list[Job]:
        return [job for job in self._as_believed(await self._ledger.parked_jobs(user_id)) if job.ended_at is None]

    async def untold_jobs(self) -> list[Job]:
        return [job for job in await self._ledger.untold_jobs() if job.id not in self._believed]

    async def fact(self, name: str) -> str | None:
        return self._facts.get(name) or await self._ledger.fact(name)

    async def remember(self, name: str, value: str) -> None:
        """Small facts are precautions: while the disk takes nothing memory holds them, for nothing may wait for one."""
        try:
            await self._ledger.remember(name, value)
            self._facts.pop(name, None)
        except BooksUnavailable as unavailable:
            self._facts[name] = value
            await self._make_room()
            self._on_unavailable(unavailable)

    async def allowances(self, limits: Sequence[Limit]) -> list[Allowance]:
        return await self._ledger.allowances(limits)

    def _as_believed(self, jobs: list[Job]) -> list[Job]:
        return [self._believed.get(job.id, job) for job in jobs]
