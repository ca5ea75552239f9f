"""A ledger that falls back to a journal when SQLite can't write.

What has already happened is then recorded in the journal and the job goes on from there; new jobs are rejected. The
records are flushed into the database, in order, as soon as it can be written again, or by the next start.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from contextlib import suppress
from contextvars import Context
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from bot.domain.errors import StorageUnavailable, TransitionRefused
from bot.domain.models import TRANSITIONS, Job, Output, Picture, State, Step, require
from bot.storage import journal_records

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bot.domain.models import Allowance, Claim, Limit, Reservation
    from bot.storage.journal import DiskReserve, Journal, Record
    from bot.storage.ledger import Ledger

log = logging.getLogger(__name__)

_PROBE = timedelta(seconds=30)  # between two looks whether the disk has room again
_LONGEST_PAUSE = 5.0  # seconds between two tries to carry over


class JournaledLedger:
    """A `JobRepository`. `on_unavailable` is told of every write that the database refused."""

    def __init__(
        self,
        ledger: Ledger,
        journal: Journal,
        reserve: DiskReserve,
        *,
        clock: Callable[[], datetime],
        on_unavailable: Callable[[StorageUnavailable], None],
    ) -> None:
        self._ledger = ledger
        self._journal = journal
        self._reserve = reserve
        self._clock = clock
        self._on_unavailable = on_unavailable
        self._pending: list[Record] = []
        self._unsynced_jobs: dict[str, Job] = {}  # as their pending records say
        self._notified: set[str] = set()  # those of them whose requesters have been notified
        self._writing: set[asyncio.Task[Job]] = set()
        self._values: dict[str, str] = {}  # values that the database has not accepted
        self._journal_lock = asyncio.Lock()  # a record must not be cleared while it is written
        self._flush_task: asyncio.Task[None] | None = None
        self._probed = datetime.min.replace(tzinfo=UTC)

    async def replay(self) -> int:
        """After a start: flush what the last process left in the journal; returns how many records that were.

        If the disk has no room even for those, they stay pending until it has.
        """
        left = await asyncio.to_thread(self._journal.records)
        self._pending = list(left)
        for attempt in range(2):
            try:
                await self._flush()
                await asyncio.to_thread(self._reserve.allocate)  # last: the pending records need the room more
                break
            except (StorageUnavailable, OSError) as error:
                await self._make_room()
                if attempt:
                    self._on_unavailable(StorageUnavailable(str(error)))
                    await self._follow(left)
        return len(left)

    async def _follow(self, left: Sequence[Record]) -> None:
        for record in left:
            job = self._unsynced_jobs.get(record["job"]) or await self._ledger.job(record["job"])
            if job is not None:
                self._note(job, record)
        self._start_flushing()

    def _note(self, job: Job, record: Record) -> Job:
        """Continue from `record`, which the database has not seen; returns the job as it is now."""
        updated = self._unsynced_jobs[job.id] = journal_records.apply(job, record, self._ledger.spool)
        if Step(record["step"]) is Step.NOTIFIED:
            self._notified.add(job.id)
        return updated

    async def close(self) -> None:
        """Try once more; what is still pending then stays in the journal."""
        await self._writes_done()
        if self._flush_task is not None:
            self._flush_task.cancel()
            await asyncio.wait([self._flush_task])
        with suppress(StorageUnavailable, OSError):
            await self._flush()

    # --- before anything has happened: the database or nothing ------------------------------------------------------

    async def reserve(self, reservation: Reservation) -> Job:
        """As the ledger does; raises `StorageUnavailable` too while records are pending or the disk has no room."""
        if (unavailable := await self.problem()) is not None:
            self._on_unavailable(unavailable)
            raise unavailable
        try:
            return await self._ledger.reserve(reservation)
        except StorageUnavailable as refused:
            await self._make_room()
            self._on_unavailable(refused)
            raise

    async def problem(self) -> StorageUnavailable | None:
        """Why new requests are rejected, if they are: the database is damaged, records are pending, or the reserve
        finds no room.
        """
        if (damage := self._ledger.damage) is not None:
            return StorageUnavailable(damage, damaged=True)
        if self._pending:
            self._start_flushing()
        elif await self._has_room():
            return None
        return StorageUnavailable("the disk is full")

    async def require_settled(self) -> None:
        """Raises `StorageUnavailable` unless the database knows everything, and the journal nothing."""
        await self._writes_done()
        if (unavailable := await self.problem()) is not None:
            raise unavailable
        if self._flush_task is not None:
            await asyncio.wait([self._flush_task])  # it may be about to clear the journal

    async def acked(self, job: Job, *, message_id: int) -> Job:
        return await self._ledger.acked(job, message_id=message_id)

    async def sending(self, job: Job, *, now: datetime) -> Job:
        return await self._ledger.sending(job, now=now)

    # --- what has happened: the database or the journal --------------------------------------------------------------

    async def generated(self, job: Job, output: Output, *, now: datetime) -> Job:
        return await self._write(job, Step.GENERATED, now, url=output.url, request_id=output.request_id)

    async def spooled(self, job: Job, picture: Picture) -> Job:
        return await self._write(job, Step.SPOOLED, self._clock(), picture=journal_records.picture_facts(picture))

    async def parked(self, job: Job, *, now: datetime) -> Job:
        return await self._write(job, Step.PARKED, now)

    async def claiming(self, job: Job, claim: Claim | None) -> Job:
        """Where a picture is being handed over; while the disk is full, memory alone knows."""
        if job.id not in self._unsynced_jobs:
            with suppress(StorageUnavailable):
                return await self._ledger.claiming(job, claim)
        return replace(job, claim=claim)

    async def delivered(self, job: Job, *, message_id: int, now: datetime) -> Job:
        return await self._write(job, Step.DELIVERED, now, message_id=message_id)

    async def released(self, job: Job, *, reason: str, request_id: str | None, now: datetime) -> Job:
        return await self._write(
            job, Step.RELEASED, now, reason=reason, request_id=request_id, message_id=job.message_id
        )

    async def notified(self, job: Job, *, now: datetime) -> None:
        await self._write(job, Step.NOTIFIED, now)

    async def _write(self, job: Job, step: Step, now: datetime, **facts: Any) -> Job:
        """Record what has happened, even if the caller is cancelled meanwhile: nothing else knows of it.

        Raises `TransitionRefused`, and `StorageUnavailable` if the journal can't be written either.
        """
        record = journal_records.record_of(job, step, now, **facts)
        writing = asyncio.create_task(self._write_record(job, record))
        self._writing.add(writing)
        writing.add_done_callback(self._writing.discard)
        return await asyncio.shield(writing)

    async def _write_record(self, job: Job, record: Record) -> Job:
        if job.id not in self._unsynced_jobs:
            try:
                return await self._apply(record, job)
            except StorageUnavailable as unavailable:
                await self._make_room()
                self._on_unavailable(unavailable)
        async with self._journal_lock:
            current = self._unsynced_jobs.get(job.id, job)
            if not journal_records.allows(current, record):
                raise TransitionRefused(job.id, "/".join(TRANSITIONS[Step(record["step"])].sources))
            try:
                await asyncio.to_thread(self._journal.append, record)
            except OSError as error:
                lost = StorageUnavailable(f"the journal too ({type(error).__name__})")
                self._on_unavailable(lost)
                raise lost from error
            self._pending.append(record)
            updated = self._note(current, record)
        self._start_flushing()
        return updated

    async def _writes_done(self) -> None:
        """Wait until every write begun so far has ended."""
        if self._writing:
            await asyncio.wait(set(self._writing))

    # --- flushing the journal ----------------------------------------------------------------------------------------

    def _start_flushing(self) -> None:
        if self._flush_task is None or self._flush_task.done():
            self._flush_task = asyncio.create_task(self._flush_all(), name="journal-flush", context=Context())

    async def _flush_all(self) -> None:
        pause = 0.2
        while self._pending or self._unsynced_jobs:
            try:
                await self._flush()
            except (StorageUnavailable, OSError):
                log.debug("the database still can't be written")
            except Exception:
                log.exception("the pending records could not be flushed; trying again")
            else:
                continue
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _flush(self) -> None:
        """Write every pending record into the database; raises `StorageUnavailable`."""
        while self._pending:
            await self._flush_record(self._pending[0])
            del self._pending[0]
        async with self._journal_lock:
            if not self._pending:
                await asyncio.to_thread(self._journal.clear)
                self._unsynced_jobs.clear()
                self._notified.clear()

    async def _flush_record(self, record: Record) -> None:
        """Apply one record, perhaps a second time: then the job is no longer in a state that allows it."""
        job = await self._ledger.job(record["job"])
        if job is None:
            log.error("the journal names job %s, which the database does not have", record["job"])
            return
        try:
            await self._apply(record, job)
        except (TransitionRefused, sqlite3.IntegrityError) as refusal:
            log.info("job %s: %s was flushed before: %s", job.id, record["step"], refusal)

    async def _apply(self, record: Record, job: Job) -> Job:
        ledger, at = self._ledger, journal_records.recorded_at(record)
        match Step(record["step"]):
            case Step.GENERATED:
                return await ledger.generated(job, Output(record["url"], record["request_id"]), now=at)
            case Step.SPOOLED:
                return await ledger.spooled(job, journal_records.picture_from(record, ledger.spool))
            case Step.PARKED:
                return await ledger.parked(job, now=at)
            case Step.DELIVERED:
                return await ledger.delivered(job, message_id=record["message_id"], now=at)
            case Step.RELEASED:
                job = replace(job, message_id=record.get("message_id") or job.message_id)
                return await ledger.released(job, reason=record["reason"], request_id=record["request_id"], now=at)
            case _:
                await ledger.notified(job, now=at)
                return job

    # --- room on the disk --------------------------------------------------------------------------------------------

    async def _make_room(self) -> None:
        await asyncio.to_thread(self._reserve.free)
        self._probed = self._clock()

    async def _has_room(self) -> bool:
        if self._reserve.is_allocated:
            return True
        if self._clock() < self._probed + _PROBE:
            return False
        self._probed = self._clock()
        return await asyncio.to_thread(self._reserve.allocate)

    # --- reading -----------------------------------------------------------------------------------------------------

    async def job(self, job_id: str) -> Job | None:
        return self._unsynced_jobs.get(job_id) or await self._ledger.job(job_id)

    async def open_jobs(self) -> list[Job]:
        await self._writes_done()
        return [job for job in self._as_recorded(await self._ledger.open_jobs()) if job.ended_at is None]

    async def parked_jobs(self, user_id: int) -> list[Job]:
        """As the ledger's, with those that only the journal calls parked."""
        await self._writes_done()
        jobs = {job.id: job for job in self._unsynced_jobs.values() if job.requester.user_id == user_id}
        for job in await self._ledger.parked_jobs(
            user_id
        ):  # after the journal's: a flush moves a job from there to here
            jobs.setdefault(job.id, job)
        parked = [job for job in jobs.values() if job.parked_at is not None and job.ended_at is None]
        return sorted(parked, key=lambda job: require(job.parked_at))

    async def unnotified_jobs(self) -> list[Job]:
        stored = [job for job in await self._ledger.unnotified_jobs() if job.id not in self._unsynced_jobs]
        released = [job for job in self._unsynced_jobs.values() if job.state is State.RELEASED]
        return stored + [job for job in released if job.id not in self._notified]

    async def get_value(self, name: str) -> str | None:
        return self._values.get(name) or await self._ledger.get_value(name)

    async def set_value(self, name: str, value: str) -> None:
        """Such values are precautions: while the disk is full, memory holds them, since nothing may wait for one."""
        self._values[name] = value
        for _ in range(2):  # the second time with the room of the reserve
            try:
                await self._ledger.set_value(name, value)
            except StorageUnavailable as unavailable:
                await self._make_room()
                self._on_unavailable(unavailable)
            else:
                if self._values.get(name) == value:  # and not a newer one
                    del self._values[name]
                return

    async def allowances(self, limits: Sequence[Limit]) -> list[Allowance]:
        return await self._ledger.allowances(limits)

    def _as_recorded(self, jobs: list[Job]) -> list[Job]:
        return [self._unsynced_jobs.get(job.id, job) for job in jobs]
