"""Converts between rows of the jobs table and the nouns: the only place that knows how a value is stored."""

from __future__ import annotations

import json
from dataclasses import fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from bot.domain.models import Claim, Format, Job, Model, Output, Picture, Requester, State, ThumbnailRequest, Weight
from bot.domain.quota import day

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from sqlite3 import Row

    from bot.domain.models import Reservation


CREATE_FROM_IMAGE = "create_from_image"  # the operation: which endpoint of the provider a job calls

_NOT_STORED = ("image_base64", "support_base64")  # made when the call is
_STORED = tuple(field.name for field in fields(ThumbnailRequest) if field.name not in _NOT_STORED)
_STORED_AS = {"image_hash": "image_sha256", "support_hash": "support_sha256"}  # the names that they had at first
_FIELDS = {stored: name for name, stored in _STORED_AS.items()}
_CONVERTED: dict[str, Callable[[Any], Any]] = {"model": Model, "format": Format, "image_weight": Weight}


def job_from_row(row: Row, spool: Path) -> Job:
    """The job in a row of the jobs table; its picture lies in the folder `spool`."""
    return Job(
        id=row["id"],
        state=State(row["state"]),
        request=request_from_json(row["request"]),
        requester=_requester(row),
        cost=row["cost"],
        created_at=time_of(row["created_at"]),
        message_id=row["message_id"],
        sent_at=maybe_time(row["sent_at"]),
        output=_output(row),
        generated_at=maybe_time(row["generated_at"]),
        picture=_picture(row, spool),
        parked_at=maybe_time(row["parked_at"]),
        ended_at=maybe_time(row["ended_at"]),
        reason=row["reason"],
        parent_id=row["parent_id"],
        shared_id=row["shared_id"],
        sharing_at=maybe_time(row["sharing_at"]),
        claim=_claim(row),
    )


def row_from_request(reservation: Reservation) -> dict[str, Any]:
    """The named values of a new job's row, without its id."""
    requester = reservation.requester
    return {
        "interaction_id": requester.interaction_id,
        "reacted_to": requester.reacted_to,
        "parent_id": reservation.parent_id,
        "private": requester.private,
        "user_id": requester.user_id,
        "guild_id": requester.guild_id,
        "channel_id": requester.channel_id,
        "token": requester.token,
        "locale": requester.locale,
        "upload_limit": requester.upload_limit,
        "operation": CREATE_FROM_IMAGE,
        "request": request_to_json(reservation.request),
        "cost": reservation.cost,
        "asked_at": ms(requester.asked_at),
        "created_at": ms(reservation.now),
        "counted_on": reservation.counted_on or day(requester.asked_at).first,
        "price": reservation.price,
        "spoiler": requester.spoiler,
    }


def request_to_json(request: ThumbnailRequest) -> str:
    """A request as the `request` column holds it: what is not set is left out, and so are the bytes to send."""
    values = {_STORED_AS.get(name, name): getattr(request, name) for name in _STORED}
    return json.dumps({name: value for name, value in values.items() if value is not None})


def request_from_json(text: str) -> ThumbnailRequest:
    stored = json.loads(text)
    values = {_FIELDS.get(name, name): value for name, value in stored.items()}
    return ThumbnailRequest(**{name: _CONVERTED.get(name, str)(value) for name, value in values.items()})


def _requester(row: Row) -> Requester:
    return Requester(
        user_id=row["user_id"],
        guild_id=row["guild_id"],
        channel_id=row["channel_id"],
        interaction_id=row["interaction_id"],
        token=row["token"] or "",
        asked_at=time_of(row["asked_at"]),
        upload_limit=row["upload_limit"],
        private=bool(row["private"]),
        reacted_to=row["reacted_to"],
        locale=row["locale"],
        spoiler=bool(row["spoiler"]),
    )


def _claim(row: Row) -> Claim | None:
    if row["claim_token"] is None:
        return None
    return Claim(row["user_id"], row["claim_token"], row["claim_limit"], time_of(row["claimed_at"]))


def _output(row: Row) -> Output | None:
    """After a job's end, only the request id is left of it."""
    if row["output_url"] is None and (row["generated_at"] is None or row["request_id"] is None):
        return None
    return Output(row["output_url"] or "", row["request_id"])


def _picture(row: Row, spool: Path) -> Picture | None:
    if row["picture_file"] is None:
        return None
    return Picture(
        path=spool / row["picture_file"],
        type=row["picture_type"],
        width=row["picture_width"],
        height=row["picture_height"],
        size=row["picture_size"],
    )


def ms(at: datetime) -> int:
    """Milliseconds since 1970-01-01 UTC, which is how times are stored."""
    return round(at.timestamp() * 1000)


def time_of(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def maybe_time(ms: int | None) -> datetime | None:
    return None if ms is None else time_of(ms)
