"""Builds the values that tests need, with defaults that no test depends on."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING, Any

from PIL import Image

from bot.domain.models import (
    Format,
    Job,
    Limit,
    Model,
    Requester,
    Reservation,
    Scope,
    State,
    ThumbnailRequest,
    Window,
)
from bot.domain.quota import day

if TYPE_CHECKING:
    from collections.abc import Sequence

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
API_KEY = "pkz_canary_4f1c9d27e8b35a60"
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
    return Limit(Scope.MEMBER, user_id, amount, window or day(NOON), place=7)


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


def a_job(*, reason: str | None = None, **changes: Any) -> Job:
    """A job of member 1 that costs one credit; `changes` apply to its request."""
    state = State.RESERVED if reason is None else State.RELEASED
    return Job("k3f9", state, replace(request(), **changes), requester(), cost=1, created_at=NOON, reason=reason)


def image_bytes(kind: str = "PNG", *, width: int = 64, height: int = 36, noisy: bool = False) -> bytes:
    size = (width, height)
    noise = hashlib.shake_256(b"noise").digest(3 * width * height if noisy else 0)
    image = Image.frombytes("RGB", size, noise) if noisy else Image.new("RGB", size, "teal")
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()
