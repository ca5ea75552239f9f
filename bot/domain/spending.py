"""What the operator reads: how the bot is, who spent what, and which jobs are to be reconciled with the provider."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from bot.domain.backups import Backup
    from bot.domain.models import Allowance, Circuit, Window


@dataclass(frozen=True, slots=True)
class Spent:
    """What one member or one server used: credits, and the price of the images in millionths of a dollar."""

    subject: int
    credits: int
    price: int


class Settlement(StrEnum):
    """What the operator found out about a job whose outcome was unknown. Stored, so never renamed."""

    PAID = "paid"
    FREE = "free"


@dataclass(frozen=True, slots=True)
class UnknownJob:
    """A job that may have been paid for: its call left, and no usable answer came back."""

    job_id: str
    sent_at: datetime | None
    ended_at: datetime
    request_id: str | None
    price: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """Somebody who was refused because the provider's balance was empty."""

    user_id: int
    channel_id: int
    locale: str


@dataclass(frozen=True, slots=True)
class Condition:
    """How the bot is. `unknown` is the number of jobs to reconcile, `unknown_at_least` that there are more. `backup` is
    the newest one.
    """

    paused: str | None
    circuits: Mapping[Circuit, datetime | None]
    waiting: int
    running: int
    budgets: Sequence[Allowance]
    unknown: int
    unknown_at_least: bool
    backup: Backup | None
    version: str


@dataclass(frozen=True, slots=True)
class Bill:
    """Who spent what in a window, the dearest first."""

    window: Window
    budget: Sequence[Allowance]
    servers: Sequence[Spent]
    members: Sequence[Spent]
