"""What the operator may do and ask while the bot runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bot import __version__
from bot.domain.server_rules import Change
from bot.domain.spending import Bill, Condition

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from bot.domain.backups import Backup
    from bot.domain.models import Circuit
    from bot.domain.protocols import KeyValueStore, PolicyStore, SpendingStore
    from bot.domain.spending import Settlement, UnknownJob
    from bot.jobs.admission import Admission
    from bot.jobs.queue import RequestQueue

_PAUSED = "paused"  # the reason; empty while the bot is not paused
_EVERYWHERE = 0
_UNKNOWN_SHOWN = 15
_SPENDERS_SHOWN = 10


class Operations:
    """Each change is written down with the operator who made it."""

    def __init__(
        self,
        *,
        admission: Admission,
        queue: RequestQueue,
        policies: PolicyStore,
        spending: SpendingStore,
        values: KeyValueStore,
        clock: Callable[[], datetime],
        newest_backup: Callable[[], Backup | None],
    ) -> None:
        self._admission = admission
        self._queue = queue
        self._policies = policies
        self._spending = spending
        self._values = values
        self._clock = clock
        self._newest_backup = newest_backup

    async def restore(self) -> None:
        """After a start: stay paused if the bot was."""
        self._admission.paused = await self._values.get_value(_PAUSED) or None

    async def condition(self) -> Condition:
        unknown = await self._spending.unknown_jobs(count=_UNKNOWN_SHOWN + 1)
        return Condition(
            paused=self._admission.paused,
            circuits=self._queue.circuits.open,
            waiting=self._queue.waiting,
            running=self._queue.running,
            budgets=await self._admission.spend(self._clock()),
            unknown=min(len(unknown), _UNKNOWN_SHOWN),
            unknown_at_least=len(unknown) > _UNKNOWN_SHOWN,
            backup=self._newest_backup(),
            version=__version__,
        )

    async def pause(self, reason: str, *, actor: int) -> None:
        """Accept nothing new, for a reason that members read. What is in progress goes on."""
        await self._values.set_value(_PAUSED, reason)
        self._admission.paused = reason
        await self._policies.record(self.change("pause", actor=actor), reason=reason)

    async def resume(self, *, actor: int) -> list[Circuit]:
        """Accept requests again, and close every circuit at once; returns those that were open."""
        await self._values.set_value(_PAUSED, "")
        self._admission.paused = None
        closed = list(self._queue.circuits.open)
        for circuit in closed:
            self._queue.circuits.close(circuit)
        await self._policies.record(self.change("resume", actor=actor), circuits=closed)
        return closed

    async def bill(self, *, monthly: bool) -> Bill:
        """Who has spent what today or this month."""
        at = self._clock()
        window = self._admission.quota.window(at, monthly=monthly)
        return Bill(
            window,
            budget=[budget for budget in await self._admission.spend(at) if budget.limit.window == window],
            servers=await self._spending.by_server(window, count=_SPENDERS_SHOWN),
            members=await self._spending.by_member(window, count=_SPENDERS_SHOWN),
        )

    async def unknown_jobs(self) -> list[UnknownJob]:
        """The oldest jobs to reconcile with the provider."""
        return await self._spending.unknown_jobs(count=_UNKNOWN_SHOWN)

    async def settle(self, job_id: str, outcome: Settlement, *, actor: int) -> bool:
        """Record what became of a job whose outcome is unknown; False if it is not one of these."""
        job_id = job_id.strip().removeprefix("#").lower()
        settled = await self._spending.settle(job_id, outcome, actor=actor, now=self._clock())
        if settled:
            await self._policies.record(self.change("settle", actor=actor), job=job_id, outcome=outcome)
        return settled

    def change(self, action: str, *, actor: int, target: int = 0) -> Change:
        """A change by an operator, which is for every server."""
        return Change(actor, _EVERYWHERE, f"operator {action}", self._clock(), target=target)
