"""What a request costs and which limits apply to it. Pure: the clock and the sums come from outside."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from bot.domain.models import Limit, Scope, Window

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bot.domain.models import Allowance, Model


def day(now: datetime) -> Window:
    """The UTC day around `now`."""
    start = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return Window(start, start + timedelta(days=1))


@dataclass(frozen=True, slots=True)
class QuotaRules:
    """The operator's rules: credits a member may use a day, and what each model costs in credits."""

    member_daily: int
    costs: Mapping[Model, int]

    def cost(self, model: Model) -> int:
        return self.costs.get(model, 1)

    def limits(self, user_id: int, asked_at: datetime) -> tuple[Limit, ...]:
        """Every limit that applies to this member for a request of `asked_at` (Discord's clock, not ours)."""
        return (Limit(Scope.MEMBER, user_id, self.member_daily, day(asked_at)),)


def binding_limit(allowances: Sequence[Allowance], cost: int) -> Allowance | None:
    """The allowance that has no room for `cost`; of several, the one that resets last."""
    short = [allowance for allowance in allowances if allowance.used + cost > allowance.limit.amount]
    return max(short, key=lambda allowance: allowance.limit.window.end, default=None)
