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
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from bot.errors import BooksUnavailable, TransitionRefused
from bot.model import Job, Output, Picture, State

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from bot.journal import Ballast, Journal, Record
    from bot.ledger import Ledger
    from bot.model import Allowance, Asker, Limit, ThumbnailRequest

log = logging.getLogger(__name__)

_PROBE = timedelta(seconds=30)  # between two looks whether the disk has room again
_LONGEST_PAUSE = 5.0  # seconds between two tries to carry over
_PICTURE = ("type", "width", "height", "size", "sha256")


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
        self._journalling = asyncio.Lock()  # a record is not to be cleared away while it is written
        self._carrier: asyncio.Task[None] | None = None
        self._probed = datetime.min.replace(tzinfo=UTC)

    async def replay(self) -> int:
        """After a start: carry over what the last process left in the journal; returns how many records that were."""
        self._ballast.lay()
        records = await asyncio.to_thread(self._journal.records)
        for record in records:
            await self._carry_over(record)
        await asyncio.to_thread(self._journal.clear)
        return len(records)

    async def close(self) -> None:
        """Try once more; what is owed even then stays in the journal."""
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
        record = {"step": "generated", "url": output.url, "request_id": output.request_id, "at": now.timestamp()}
        return await self._write(replace(job, state=State.GENERATED, output=output, generated_at=now), record)

    async def spooled(self, job: Job, picture: Picture) -> Job:
        record = {"step": "spooled", "picture": _facts(picture)}
        return await self._write(replace(job, state=State.SPOOLED, picture=picture), record)

    async def parked(self, job: Job, *, now: datetime) -> Job:
        return await self._write(replace(job, parked_at=now), {"step": "parked", "at": now.timestamp()})

    async def delivered(self, job: Job, *, message_id: int, now: datetime) -> Job:
        ended = replace(job, state=State.DELIVERED, message_id=message_id, ended_at=now)
        return await self._write(ended, {"step": "delivered", "message_id": message_id, "at": now.timestamp()})

    async def released(self, job: Job, *, reason: str, request_id: str | None, now: datetime) -> Job:
        ended = replace(job, state=State.RELEASED, reason=reason, ended_at=now)
        record = {"step": "released", "reason": reason, "request_id": request_id, "at": now.timestamp()}
        return await self._write(ended, record)

    async def told(self, job: Job, *, now: datetime) -> None:
        await self._write(job, {"step": "told", "at": now.timestamp()})

    async def _write(self, believed: Job, facts: Record) -> Job:
        """Write `facts`, after which the job is as `believed`; raises `BooksUnavailable` if the journal is no use."""
        record = {"job": believed.id, **facts}
        if believed.id not in self._believed:
            try:
                return await self._apply(record, believed)
            except BooksUnavailable as unavailable:
                await self._make_room()
                self._on_unavailable(unavailable)
        async with self._journalling:
            try:
                await asyncio.to_thread(self._journal.append, record)
            except OSError as error:
                raise BooksUnavailable(f"the journal too ({type(error).__name__})") from error
            self._owed.append(record)
            self._believed[believed.id] = believed
        if self._carrier is None or self._carrier.done():
            self._carrier = asyncio.create_task(self._carry_all_over(), name="journal-carrier", context=Context())
        return believed

    # --- carrying over -----------------------------------------------------------------------------------------------

    async def _carry_all_over(self) -> None:
        pause = 0.2
        while self._owed or self._believed:
            try:
                await self._pay()
            except (BooksUnavailable, OSError):
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    async def _pay(self) -> None:
        """Carry over everything that is owed; raises `BooksUnavailable`."""
        while self._owed:
            await self._carry_over(self._owed[0])
            del self._owed[0]
        async with self._journalling:
            if self._believed and not self._owed:
                await asyncio.to_thread(self._journal.clear)
                self._believed.clear()
                log.info("the database has caught up with the journal")

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
        ledger, at = self._ledger, datetime.fromtimestamp(record.get("at", 0), UTC)
        match record["step"]:
            case "generated":
                return await ledger.generated(job, Output(record["url"], record["request_id"]), now=at)
            case "spooled":
                return await ledger.spooled(job, _picture(record["picture"], ledger.spool))
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
        return [job for job in self._as_believed(await self._ledger.open_jobs()) if job.ended_at is None]

    async def parked_jobs(self, user_id: int) -> list[Job]:
        return [job for job in self._as_believed(await self._ledger.parked_jobs(user_id)) if job.ended_at is None]

    async def untold_jobs(self) -> list[Job]:
        return [job for job in await self._ledger.untold_jobs() if job.id not in self._believed]

    async def allowances(self, limits: Sequence[Limit]) -> list[Allowance]:
        return await self._ledger.allowances(limits)

    def _as_believed(self, jobs: list[Job]) -> list[Job]:
        return [self._believed.get(job.id, job) for job in jobs]


def _facts(picture: Picture) -> dict[str, Any]:
    return {name: getattr(picture, name) for name in _PICTURE} | {"file": picture.path.name}


def _picture(facts: dict[str, Any], folder: Path) -> Picture:
    return Picture(path=folder / facts["file"], **{name: facts[name] for name in _PICTURE})
