"""Makes the values tests need, with defaults nobody cares about."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING

from bot.domain.models import Format, Limit, Model, Requester, Reservation, Scope, ThumbnailRequest, Window
from bot.domain.quota import day

if TYPE_CHECKING:
    from collections.abc import Sequence

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
_interactions = count(10**18)


def request(model: Model = Model.PKZ_4, prompt: str | None = "a cat") -> ThumbnailRequest:
    return ThumbnailRequest("https://cdn.example/cat.png", model, Format.WIDE, prompt=prompt)


def requester(user_id: int = 1, *, interaction_id: int | None = None, at: datetime = NOON) -> Requester:
    return Requester(
        user_id=user_id,
        guild_id=7,
        channel_id=8,
        interaction_id=next(_interactions) if interaction_id is None else interaction_id,
        token="interaction-token",
        asked_at=at,
        upload_limit=10 * 1024 * 1024,
    )


def limit(amount: int = 5, *, user_id: int = 1, window: Window | None = None) -> Limit:
    return Limit(Scope.MEMBER, user_id, amount, window or day(NOON))


def reservation(
    by: Requester,
    *,
    cost: int = 1,
    limits: Sequence[Limit] = (),
    now: datetime = NOON,
    what: ThumbnailRequest | None = None,
    parent_id: str | None = None,
) -> Reservation:
    return Reservation(what or request(), by, cost=cost, limits=limits, now=now, parent_id=parent_id)
