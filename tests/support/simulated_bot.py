"""One process of the bot on virtual time: the real use case, queue and ledger around simulated adapters."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, cast

from bot.domain.errors import JobFailed, RequestRejected, StorageUnavailable
from bot.domain.models import DEFAULT_UPLOAD_LIMIT, Claim, Model
from bot.jobs import use_case
from bot.jobs.circuits import Circuits
from bot.jobs.notices import Notices
from bot.jobs.ports import Ports
from bot.jobs.queue import RequestQueue
from bot.storage.database import Database
from bot.storage.journaled_ledger import JournaledLedger
from bot.storage.ledger import Ledger
from sandbox.failpoints import wrapped
from tests.support.admissions import NoJobLog, admission, daily, no_refill
from tests.support.simulated_adapters import Alerts, Downloader, Messenger, Metrics, Provider, SourceImages
from tests.support.simulated_disk import Connection, CrashableJournal, DatabaseThread, DiskReserve, Spool, SpoolFolder
from tests.support.simulated_world import HOUR, Process

if TYPE_CHECKING:
    import random
    import sqlite3
    from datetime import datetime
    from pathlib import Path

    import aiosqlite

    from bot.domain.models import Circuit
    from bot.domain.quota import QuotaRules
    from bot.storage import journal
    from tests.support.invariants import Invariants
    from tests.support.simulated_world import Submission, World

MODELS = tuple(Model)
SALT = "00"  # of the pseudonyms


@dataclass(frozen=True, slots=True)
class Plan:
    """The day's bot settings and request load."""

    rules: QuotaRules
    members: int
    queue: dict[str, int]
    retry_server_errors: bool
    gap: float  # average seconds between two bursts of requests
    burst: int  # maximum requests in one burst
    crash_interval: int  # average steps between two crashes, or 0 for none
    stops: int
    journal: int  # bytes

    @classmethod
    def draw(cls, chance: random.Random) -> Plan:
        burst, highest_cost = chance.choice((1, 1, 3, 12)), chance.choice((1, 2, 4))
        return cls(
            rules=daily(
                chance.randint(2, 6) * highest_cost, {model: chance.randint(0, highest_cost) for model in MODELS}
            ),
            members=chance.randint(15, 40),
            queue={
                "concurrency": chance.randint(1, 6),
                "limit": chance.randint(3, 30),
                "per_member": chance.randint(1, 4),
            },
            retry_server_errors=chance.random() < 0.3,
            gap=chance.choice((60.0, 300.0, 600.0)) * burst,
            burst=burst,
            crash_interval=chance.choice((0, 60, 300, 1500)),
            stops=chance.choice((0, 0, 2, 6)),
            journal=chance.choice((500, 4_000, 64_000)),
        )


class Bot(Process):
    """One process with the real use case, queue, ledger and transactions."""

    def __init__(self, world: World, plan: Plan, invariants: Invariants, *, crash_after: int) -> None:
        super().__init__(world, crash_after=crash_after)
        self.queue = RequestQueue(
            Circuits(clock=world.clock, on_open=self._on_open),
            concurrency=plan.queue["concurrency"],
            limit=plan.queue["limit"],
            per_member=plan.queue["per_member"],
        )
        connection = cast("aiosqlite.Connection", DatabaseThread(self))
        self.database = Database(connection, cast("sqlite3.Connection", Connection(self, invariants)), salt=SALT)
        self.repository = JournaledLedger(
            Ledger(self.database, spool=cast("Path", SpoolFolder(world))),
            CrashableJournal(world.journal, self, size=plan.journal),
            cast("journal.DiskReserve", DiskReserve(self)),
            clock=world.clock,
            on_unavailable=lambda _: None,
        )
        self.messenger = Messenger(self, self._cancel)
        self.ready_at = math.inf
        ports = Ports(
            queue=self.queue,
            repository=self.repository,
            sources=SourceImages(self),
            provider=Provider(self, retry_server_errors=plan.retry_server_errors),
            downloader=Downloader(self),
            spool=Spool(self),
            messenger=self.messenger,
            notices=Notices(Alerts(self)),
            refill=no_refill(world.clock),
            metrics=Metrics(),
            job_log=NoJobLog(),
            clock=world.clock,
        )
        self.use_case = use_case.assemble(
            wrapped(ports, self.reach),
            admission=admission(plan.rules, self.repository, world.clock),
            retry_server_errors=plan.retry_server_errors,
        )

    def _cancel(self, job_id: str) -> bool:
        return self.use_case.lifecycle.cancel(job_id)

    def _on_open(self, circuit: Circuit, until: datetime | None) -> None:
        self.world.note("circuit", None, circuit)
        if until is None:  # the operator fixes the problem and restarts the bot
            self.world.loop.call_later(self.world.chance.expovariate(1 / HOUR), self.end, "stop")

    @property
    def is_ready(self) -> bool:
        return self.ready_at < math.inf and not self.dead

    async def start(self) -> None:
        try:
            await self.repository.replay()
        except StorageUnavailable:
            self.die("starting")
            return
        while not self.is_ready:
            try:
                await self.use_case.recovery.recover()
                self.ready_at = self.world.loop.time()
            except StorageUnavailable:
                await asyncio.sleep(self.world.seconds(30))  # the supervisor starts a new client

    async def stop(self, grace: float) -> None:
        await self.use_case.recovery.close(grace=grace)
        await self.repository.close()
        await self.database.drained()

    async def accept(self, submission: Submission) -> None:
        try:
            await self.use_case.lifecycle.accept(
                submission.request, submission.requester, partial(self.messenger.reply, submission)
            )
        except (RequestRejected, ConnectionError) as rejected:
            self.world.note("rejected", submission, type(rejected).__name__)
            self.world.counts[f"rejected: {type(rejected).__name__}"] += 1

    async def claim(self, member: int) -> None:
        claim = Claim(member, "token", DEFAULT_UPLOAD_LIMIT, self.world.clock())
        try:
            claimed = await self.use_case.outcomes.claim(claim)
        except (StorageUnavailable, JobFailed) as error:
            self.world.note("claim failed", None, type(error).__name__)
        else:
            self.world.counts["claimed"] += claimed.handed_over

    async def run_housekeeping(self) -> None:
        try:
            await self.use_case.recovery.tidy()
        except StorageUnavailable:
            self.world.note("housekeeping failed")
