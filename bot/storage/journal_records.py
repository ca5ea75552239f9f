"""What a line of the journal says of a job: as facts, and as the job it then is."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from bot.domain.models import OPEN_STATES, Job, Output, Picture, State

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    Record = Mapping[str, Any]

_PICTURE = ("type", "width", "height", "size", "sha256")

FROM: Mapping[str, Sequence[State]] = MappingProxyType(  # as the ledger's own transitions
    {
        "generated": (State.SENDING,),
        "spooled": (State.GENERATED, State.SPOOLED),
        "parked": (State.SPOOLED,),
        "delivered": (State.GENERATED, State.SPOOLED),
        "released": OPEN_STATES,
        "told": (State.RELEASED,),
    }
)


def after(job: Job, record: Record, spool: Path) -> Job:
    """The job as it is once `record` is true of it; its picture lies in the folder `spool`."""
    at = moment(record)
    match record["step"]:
        case "generated":
            output = Output(record["url"], record["request_id"])
            return replace(job, state=State.GENERATED, output=output, generated_at=at)
        case "spooled":
            return replace(job, state=State.SPOOLED, picture=picture(record, spool))
        case "parked":
            return replace(job, parked_at=at)
        case "delivered":
            return replace(job, state=State.DELIVERED, message_id=record["message_id"], ended_at=at)
        case "released":
            return replace(job, state=State.RELEASED, reason=record["reason"], ended_at=at)
        case _:
            return job


def moment(record: Record) -> datetime:
    """When it happened."""
    return datetime.fromtimestamp(record["at"], UTC)


def facts(shown: Picture) -> dict[str, Any]:
    """A picture as a record holds it; `picture` reads it again."""
    return {name: getattr(shown, name) for name in _PICTURE} | {"file": shown.path.name}


def picture(record: Record, spool: Path) -> Picture:
    found = record["picture"]
    return Picture(path=spool / found["file"], **{name: found[name] for name in _PICTURE})
