"""Whether a request is accepted, and on which terms: the operator's rules, the server's, and what is left."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bot.domain.errors import Paused
from bot.domain.models import OF_CREDITS, Reservation

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from bot.domain.access import AccessRules
    from bot.domain.models import Allowance, Job, Requester, ThumbnailRequest
    from bot.domain.protocols import JobRepository, Policies
    from bot.domain.quota import QuotaRules

_WARN_PERCENT = 80


class Admission:
    """Turns a request into a `Reservation`, or raises why there is none."""

    def __init__(
        self,
        *,
        quota: QuotaRules,
        access: AccessRules,
        policies: Policies,
        repository: JobRepository,
        clock: Callable[[], datetime],
    ) -> None:
        self.quota = quota
        self.access = access
        self.paused: str | None = None  # the operator's reason
        self._watching = False
        self._policies = policies
        self._repository = repository
        self._clock = clock

    async def admit(self, request: ThumbnailRequest, requester: Requester, parent: Job | None) -> Reservation:
        """The terms of a request; raises `RequestRejected` if it is not accepted whatever its cost."""
        if self.paused is not None:
            raise Paused(self.paused)
        rules = await self._policies.server_rules(requester.guild_id)
        self.access.check(requester, rules, await self._policies.blocks(requester.user_id, requester.guild_id))
        return Reservation(
            request=request,
            requester=replace(requester, spoiler=rules.spoiler),
            cost=self.quota.cost(request.model),
            limits=self.quota.limits(requester, rules),
            now=self._clock(),
            parent_id=None if parent is None else parent.id,
            price=self.quota.price(request.model),
            counted_on=self.quota.counted_on(requester.asked_at),
        )

    async def watch_budget(self, warn: Callable[[Allowance], None]) -> None:
        """`warn` of every budget of which 80 % are used. Call it after a request has been accepted."""
        if self._watching or not self.quota.money(self._clock()):
            return  # the one that is looking sees this request, or the next one does
        self._watching = True
        try:
            for budget in await self.spend(self._clock()):
                if budget.used * 100 >= budget.limit.amount * _WARN_PERCENT:
                    warn(budget)
        finally:
            self._watching = False

    async def allowances(self, requester: Requester) -> list[Allowance]:
        """What a member may still use, per limit of credits."""
        limits = self.quota.limits(requester, await self._policies.server_rules(requester.guild_id))
        return await self._repository.allowances(tuple(limit for limit in limits if limit.scope in OF_CREDITS))

    async def spend(self, at: datetime) -> list[Allowance]:
        """What of the budgets is used around `at`."""
        return await self._repository.allowances(self.quota.money(at))
