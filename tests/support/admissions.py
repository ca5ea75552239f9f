"""Admission by the rules of a quota alone: no server has rules of its own, and nobody is blocked."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from bot.domain.access import AccessRules
from bot.domain.quota import QuotaRules
from bot.domain.server_rules import Amounts, ServerRules
from bot.jobs.admission import Admission
from bot.jobs.refill import Refill

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from bot.domain.models import Job, Model
    from bot.domain.protocols import JobRepository, SpendingStore
    from bot.domain.server_rules import Block


class NoPolicies:
    async def server_rules(self, _: int | None) -> ServerRules:
        return ServerRules()

    async def blocks(self, _user_id: int, _guild_id: int | None) -> list[Block]:
        return []


class NoJobLog:
    """No server has a log channel."""

    def ended(self, job: Job) -> None:
        """Nobody reads it."""


def daily(amount: int, costs: Mapping[Model, int]) -> QuotaRules:
    """One limit: so many credits per member and day."""
    return QuotaRules(Amounts(daily=amount), costs)


def admission(quota: QuotaRules, repository: JobRepository, clock: Callable[[], datetime]) -> Admission:
    return Admission(quota=quota, access=AccessRules(), policies=NoPolicies(), repository=repository, clock=clock)


def no_refill(clock: Callable[[], datetime]) -> Refill:
    """Nobody is told that the balance is no longer empty."""
    return Refill(cast("SpendingStore", None), clock=clock, tell=None)
