"""One process of the bot on virtual time: the real use case, gate, ledger and books around simulated adapters."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, cast

from bot.domain.errors import BooksUnavailable, Refused
from bot.domain.models import Model
from bot.domain.quota import Rules
from bot.jobs.lifecycle import Thumbnails
from bot.jobs.queue import Gate
from bot.storage.database import Database
from bot.storage.journaled_ledger import JournaledBooks
from bot.storage.ledger import Ledger
from tests.support.simulated_adapters import Counters, Delivery, Given, Operator, Provider, Source
from tests.support.simulated_disk import Ballast, Disk, Folder, MortalJournal, Store, Trip
from tests.support.simulated_world import HOUR, Life

if TYPE_CHECKING:
    import random
    import sqlite3
    from datetime import datetime
    from pathlib import Path

    import aiosqlite

    from bot.domain.models import Circuit
    from bot.storage import journal
    from tests.support.invariants import Audit
    from tests.support.simulated_world import Asked, World

MODELS = tuple(Model)


@dataclass(frozen=True, slots=True)
class Plan:
    """How this day's bot is set up, and how much is asked of it."""

    rules: Rules
    members: int
    gate: dict[str, int]
    retry_server_errors: bool
    gap: float  # seconds between two moments with requests
    burst: int  # requests in such a moment, at most
    fuse: int  # steps between two crashes, 0 for none
    stops: int
    journal: int  # bytes

    @classmethod
    def drawn(cls, chance: random.Random) -> Plan:
        burst, dearest = chance.choice((1, 1, 3, 12)), chance.choice((1, 2, 4))
        return cls(
            rules=Rules(chance.randint(2, 6) * dearest, {model: chance.randint(0, dearest) for model in MODELS}),
            members=chance.randint(15, 40),
            gate={
                "concurrency": chance.randint(1, 6),
                "length": chance.randint(3, 30),
                "per_member": chance.randint(1, 4),
            },
            retry_server_errors=chance.random() < 0.3,
            gap=chance.choice((60.0, 300.0, 600.0)) * burst,
            burst=burst,
            fuse=chance.choice((0, 60, 300, 1500)),
            stops=chance.choice((0, 0, 2, 6)),
            journal=chance.choice((500, 4_000, 64_000)),
        )


class Bot(Life):
    """One process with the real use case, gate, ledger and transactions."""

    def __init__(self, world: World, plan: Plan, audit: Audit, *, fuse: int) -> None:
        super().__init__(world, fuse=fuse)
        self.gate = Gate(**plan.gate, clock=world.clock, on_open=self._on_open)
        connection = cast("aiosqlite.Connection", Trip(self))
        self.database = Database(connection, cast("sqlite3.Connection", Disk(self, audit)))
        self.books = JournaledBooks(
            Ledger(self.database, spool=cast("Path", Folder(world))),
            MortalJournal(world.journal, self, size=plan.journal),
            cast("journal.Ballast", Ballast(self)),
            clock=world.clock,
            on_unavailable=lambda _: None,
        )
        self.delivery = Delivery(self, self._cancel)
        self.ready_at = math.inf
        self.thumbnails = Thumbnails(
            admission=self.gate,
            books=self.books,
            originals=Given(self),
            provider=Provider(self, retry_server_errors=plan.retry_server_errors),
            source=Source(self),
            store=Store(self),
            delivery=self.delivery,
            operator=Operator(self),
            counters=Counters(),
            rules=plan.rules,
            clock=world.clock,
            retry_server_errors=plan.retry_server_errors,
            reach=self.reach,
        )

    def _cancel(self, job_id: str) -> bool:
        return self.thumbnails.cancel(job_id)

    def _on_open(self, circuit: Circuit, until: datetime | None) -> None:
        self.world.note("circuit", None, circuit)
        if until is None:  # the operator mends it and restarts
            self.world.loop.call_later(self.world.chance.expovariate(1 / HOUR), self.end, "stop")

    @property
    def is_ready(self) -> bool:
        return self.ready_at < math.inf and not self.dead

    async def start(self) -> None:
        try:
            await self.books.replay()
        except BooksUnavailable:
            self.die("starting")
            return
        while not self.is_ready:
            try:
                await self.thumbnails.recover()
                self.ready_at = self.world.loop.time()
            except BooksUnavailable:
                await asyncio.sleep(self.world.seconds(30))  # a client that ended is replaced by a fresh one

    async def stop(self, grace: float) -> None:
        await self.thumbnails.close(grace=grace)
        await self.books.close()
        await self.database.drained()

    async def accept(self, asked: Asked) -> None:
        try:
            await self.thumbnails.accept(asked.request, asked.asker, partial(self.delivery.answer, asked))
        except (Refused, ConnectionError) as refused:
            self.world.note("refused", asked, type(refused).__name__)
            self.world.counts[f"refused: {type(refused).__name__}"] += 1

    async def claim(self, member: int) -> None:
        try:
            claimed = await self.thumbnails.claim(member, self.delivery.hand_over)
        except (BooksUnavailable, ConnectionError) as error:
            self.world.note("claim failed", None, type(error).__name__)
        else:
            self.world.counts["claimed"] += claimed

    async def tidy(self) -> None:
        try:
            await self.thumbnails.tidy()
        except BooksUnavailable:
            self.world.note("not tidied")
