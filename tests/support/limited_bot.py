"""The real admission, ledger and policies on a database in a folder: everything between a request and its hold."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bot.domain.access import AccessRules
from bot.domain.models import Model, Output, Picture
from bot.domain.server_rules import Change
from bot.jobs.admission import Admission
from bot.storage import opening
from bot.storage.ledger import Ledger
from bot.storage.policies import Policies
from tests.support.factories import NOON, request, requester
from tests.support.totals import SUMMED

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime
    from pathlib import Path

    from bot.domain.models import Job, Requester, Scope
    from bot.domain.quota import QuotaRules
    from bot.storage.database import Database

GUILD = 7
ADMIN = 99
UNKNOWN, STRIKE, REFUSED = "outcome_unknown", "provider_refused:CONTENT_POLICY", "provider_refused:VALIDATION_ERROR"


@dataclass(frozen=True, slots=True)
class LimitedBot:
    """A bot without a provider and without Discord: a test says how a job ends."""

    database: Database
    ledger: Ledger
    policies: Policies
    admission: Admission

    async def ask(self, by: Requester | None = None, model: Model = Model.PKZ_4) -> Job:
        """Hold what a request costs; raises `RequestRejected`."""
        terms = await self.admission.admit(request(model), by or requester(), None)
        return await self.ledger.reserve(terms)

    async def generate(self, job: Job) -> Job:
        job = await self.ledger.acked(job, message_id=99)
        job = await self.ledger.sending(job, now=NOON)
        return await self.ledger.generated(job, Output("https://cdn.example/out.png", "req-1"), now=NOON)

    async def deliver(self, job: Job) -> Job:
        job = await self.ledger.spooled(await self.generate(job), Picture(self.ledger.spool / "x", "PNG", 1, 1, 1))
        return await self.ledger.delivered(job, message_id=100, now=NOON)

    async def release(self, job: Job, reason: str = REFUSED) -> Job:
        return await self.ledger.released(job, reason=reason, request_id=None, now=NOON)

    async def used(self, by: Requester | None = None) -> dict[tuple[Scope, str], int]:
        """What is used of every limit of a member, by scope and period."""
        asker = by or requester()
        terms = await self.admission.admit(request(), replace(asker, private=True), None)
        found = await self.ledger.allowances(terms.limits)
        return {(one.limit.scope, one.limit.window.period.value): one.used for one in found}

    async def grant(self, user_id: int, amount: int, guild_id: int = GUILD) -> int:
        return await self.policies.grant(self.change("grant", guild_id), user_id, amount, "thanks")

    def change(self, action: str, guild_id: int = GUILD, at: datetime = NOON) -> Change:
        return Change(ADMIN, guild_id, action, at)

    async def unexplained(self) -> list[tuple[object, ...]]:
        """As in `tests.support.totals`, for an open database."""
        stored = await self.database.run("SELECT * FROM totals WHERE used <> 0")
        summed = await self.database.run(SUMMED)
        return sorted({tuple(row) for row in stored} ^ {tuple(row) for row in summed})


@asynccontextmanager
async def limited_bot(folder: Path, quota: QuotaRules, access: AccessRules | None = None) -> AsyncIterator[LimitedBot]:
    async with opening.opened(folder / "bot.sqlite3") as store:
        ledger, policies = Ledger(store, spool=folder), Policies(store)
        admission = Admission(
            quota=quota,
            access=access or AccessRules(),
            policies=policies,
            repository=ledger,
            clock=lambda: NOON,
        )
        yield LimitedBot(store, ledger, policies, admission)
