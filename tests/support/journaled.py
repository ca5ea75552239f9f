"""A journaled ledger on a real database that can be made to refuse every write, as on a full disk."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from bot.domain.errors import StorageUnavailable
from bot.domain.models import Job, Output, Picture
from bot.storage import database, opening
from bot.storage.journal import DiskReserve, Journal
from bot.storage.journaled_ledger import JournaledLedger
from bot.storage.ledger import Ledger
from tests.support.factories import NOON, limit, requester, reservation

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

OUTPUT = Output("https://cdn.example/output.png", "req_1")


@dataclass(slots=True)
class JournaledSetup:
    repository: JournaledLedger
    ledger: Ledger
    database: database.Database
    unavailable: list[StorageUnavailable]
    offset: list[timedelta]

    async def fill(self) -> None:
        await self.database._connection.execute_fetchall("PRAGMA query_only = ON")  # from now on every write fails

    async def clear(self) -> None:
        await self.database._connection.execute_fetchall("PRAGMA query_only = OFF")

    async def wait_until_flushed(self) -> None:
        assert self.repository._flush_task is not None
        await asyncio.wait_for(self.repository._flush_task, 10)

    async def sent_job(self) -> Job:
        job = await self.repository.reserve(reservation(requester(), limits=[limit()]))
        job = await self.repository.acked(job, message_id=10)
        return await self.repository.sending(job, now=NOON)


@asynccontextmanager
async def journaled_setup(folder: Path) -> AsyncIterator[JournaledSetup]:
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(opening.opened(folder / "bot.sqlite3"))
        ledger, unavailable, offset = Ledger(store, spool=folder), list[StorageUnavailable](), [timedelta()]
        journaled = JournaledLedger(
            ledger,
            Journal(folder / "journal"),
            DiskReserve(folder / "ballast"),
            clock=lambda: NOON + offset[0],
            on_unavailable=unavailable.append,
        )
        await journaled.replay()
        stack.push_async_callback(journaled.close)
        yield JournaledSetup(journaled, ledger, store, unavailable, offset)


def picture_in(folder: Path) -> Picture:
    return Picture(folder / "k3f9.png", "PNG", 1280, 720, 1000)


async def deliver(setup: JournaledSetup, job: Job, folder: Path) -> Job:
    job = await setup.repository.generated(job, OUTPUT, now=NOON)
    job = await setup.repository.spooled(job, picture_in(folder))
    return await setup.repository.delivered(job, message_id=11, now=NOON)


def outcome(job: Job | None) -> object:
    assert job is not None
    return job.state, job.output, job.picture, job.message_id, job.ended_at
