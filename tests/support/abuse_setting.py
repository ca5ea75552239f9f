"""What the operator has chosen in one game of `tests.support.abuse_game`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from bot.domain.access import AccessRules
from bot.domain.models import Model
from bot.domain.quota import DOLLAR, QuotaRules
from bot.domain.server_rules import Amounts
from tests.support.abuse_strategies import COMMUNITIES, Calendar

if TYPE_CHECKING:
    import random

STARTS = (datetime(2026, 2, 27, tzinfo=UTC), datetime(2026, 3, 28, tzinfo=UTC), datetime(2026, 10, 30, tzinfo=UTC))
ZONES = tuple(map(ZoneInfo, ("UTC", "Europe/Berlin", "Asia/Kathmandu", "America/Sao_Paulo")))


@dataclass(frozen=True, slots=True)
class Setting:
    """The operator's choices in one game. `roomy`: what all share is enough for whatever all can use up."""

    quota: QuotaRules
    access: AccessRules
    calendar: Calendar
    roomy: bool

    @classmethod
    def draw(cls, chance: random.Random) -> Setting:
        zone, start, days, roomy = chance.choice(ZONES), chance.choice(STARTS), 2, chance.random() < 0.4
        daily, attempts = chance.randint(4, 10), chance.choice((12, 20, 60))
        prices = {model: chance.choice((50_000, 90_000, 120_000)) for model in Model}
        dollars = days * attempts * 24 * 400 if roomy else chance.randint(2, 10)
        quota = QuotaRules(
            member=Amounts(daily, chance.choice((None, 2 * daily))),
            costs={model: chance.randint(1, 3) for model in Model},
            server=Amounts() if roomy else Amounts(chance.choice((None, 40, 80)), chance.choice((None, 150))),
            bot=Amounts() if roomy else Amounts(chance.choice((None, 150, 300)), chance.choice((None, 600))),
            budget=Amounts(dollars * DOLLAR, chance.choice((2, 30)) * dollars * DOLLAR),
            prices=prices,
            zone=zone,
            attempts_hourly=attempts,
            unknown_daily=chance.randint(3, 5),
            strikes_daily=chance.randint(3, 5),
        )
        servers = frozenset(COMMUNITIES) if chance.random() < 0.6 else frozenset[int]()
        midnights = tuple((start + timedelta(days=n)).replace(tzinfo=zone).astimezone(UTC) for n in range(1, days + 1))
        return cls(quota, AccessRules(servers, timedelta(days=7)), Calendar(start, days, midnights), roomy)
