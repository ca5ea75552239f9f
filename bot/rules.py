"""The rules that the settings describe, in the words of the domain."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING

from bot.domain.access import AccessRules
from bot.domain.backups import BackupRules
from bot.domain.models import Model
from bot.domain.privacy import RetentionRules
from bot.domain.quota import DOLLAR, QuotaRules
from bot.domain.server_rules import Amounts

if TYPE_CHECKING:
    from bot.config import Settings


def retention(settings: Settings) -> RetentionRules:
    return RetentionRules(
        jobs=timedelta(days=settings.privacy.job_days),
        most_jobs=settings.privacy.most_jobs,
        left_servers=timedelta(days=settings.privacy.left_days),
        sources=timedelta(days=settings.storage.source_days if settings.storage.source_megabytes else 0),
    )


def backup(settings: Settings) -> BackupRules:
    backup = settings.backup
    return BackupRules(
        interval=timedelta(minutes=backup.minutes),
        recent=backup.keep_recent,
        hourly=backup.keep_hourly,
        daily=backup.keep_daily,
        most_bytes=backup.megabytes * 1024 * 1024,
    )


def quota(settings: Settings) -> QuotaRules:
    quota, budget = settings.quota, settings.budget
    return QuotaRules(
        member=Amounts(quota.member_daily, quota.member_monthly),
        server=Amounts(quota.server_daily, quota.server_monthly),
        bot=Amounts(quota.bot_daily, quota.bot_monthly),
        budget=Amounts(_micros(budget.daily_dollars), _micros(budget.monthly_dollars)),
        costs={model: getattr(quota.costs, model.value) for model in Model},
        prices={model: _micros(getattr(settings.prices, model.value)) or 0 for model in Model},
        zone=quota.zone,
        attempts_hourly=quota.attempts_hourly,
        unknown_daily=quota.unknown_daily,
        strikes_daily=quota.strikes_daily,
        exempt_members=quota.exempt_members,
        exempt_roles=quota.exempt_roles,
    )


def _micros(dollars: float) -> int | None:
    return round(dollars * DOLLAR) if math.isfinite(dollars) else None


def access(settings: Settings) -> AccessRules:
    access = settings.access
    return AccessRules(
        servers=access.servers,
        account_age=timedelta(days=access.account_days),
        time_in_server=timedelta(hours=access.member_hours),
    )
