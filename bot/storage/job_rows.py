"""Between rows of the jobs table and the nouns: the only place that knows how a value is stored."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from bot.domain.models import Asker, Format, Job, Model, Output, Picture, State, ThumbnailRequest, Weight

if TYPE_CHECKING:
    from pathlib import Path
    from sqlite3 import Row


def job_of(row: Row, spool: Path) -> Job:
    """The job in a row of the jobs table; its picture lies in the folder `spool`."""
    return Job(
        id=row["id"],
        state=State(row["state"]),
        request=_request(row),
        asker=_asker(row),
        cost=row["cost"],
        created_at=_time(row["created_at"]),
        message_id=row["message_id"],
        sent_at=_maybe_time(row["sent_at"]),
        output=Output(row["output_url"], row["request_id"]) if row["output_url"] else None,
        generated_at=_maybe_time(row["generated_at"]),
        picture=_picture(row, spool),
        parked_at=_maybe_time(row["parked_at"]),
        ended_at=_maybe_time(row["ended_at"]),
        reason=row["reason"],
        parent_id=row["parent_id"],
        shared_id=row["shared_id"],
    )


def row_of(
    request: ThumbnailRequest, asker: Asker, *, cost: int, now: datetime, parent_id: str | None = None
) -> dict[str, Any]:
    """The named values of a new job's row, without its id."""
    return {
        "interaction_id": asker.interaction_id,
        "reacted_to": asker.reacted_to,
        "parent_id": parent_id,
        "private": asker.private,
        "user_id": asker.user_id,
        "guild_id": asker.guild_id,
        "channel_id": asker.channel_id,
        "token": asker.token,
        "upload_limit": asker.upload_limit,
        "image_url": request.image_url,
        "model": request.model,
        "format": request.format,
        "prompt": request.prompt,
        "support_image_url": request.support_image_url,
        "image_kept": request.image_kept,
        "support_kept": request.support_kept,
        "image_weight": request.image_weight,
        "persona": request.persona,
        "style": request.style,
        "cost": cost,
        "asked_at": ms(asker.asked_at),
        "created_at": ms(now),
    }


def _request(row: Row) -> ThumbnailRequest:
    return ThumbnailRequest(
        image_url=row["image_url"],
        model=Model(row["model"]),
        format=Format(row["format"]),
        prompt=row["prompt"],
        support_image_url=row["support_image_url"],
        image_weight=None if row["image_weight"] is None else Weight(row["image_weight"]),
        persona=row["persona"],
        style=row["style"],
        image_kept=row["image_kept"],
        support_kept=row["support_kept"],
    )


def _asker(row: Row) -> Asker:
    return Asker(
        user_id=row["user_id"],
        guild_id=row["guild_id"],
        channel_id=row["channel_id"],
        interaction_id=row["interaction_id"],
        token=row["token"] or "",
        asked_at=_time(row["asked_at"]),
        upload_limit=row["upload_limit"],
        private=bool(row["private"]),
        reacted_to=row["reacted_to"],
    )


def _picture(row: Row, spool: Path) -> Picture | None:
    if row["picture_file"] is None:
        return None
    return Picture(
        path=spool / row["picture_file"],
        type=row["picture_type"],
        width=row["picture_width"],
        height=row["picture_height"],
        size=row["picture_size"],
        sha256=row["picture_sha256"],
    )


def ms(at: datetime) -> int:
    """Milliseconds since 1970-01-01 UTC, which is how times are stored."""
    return round(at.timestamp() * 1000)


def _time(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def _maybe_time(ms: int | None) -> datetime | None:
    return None if ms is None else _time(ms)
