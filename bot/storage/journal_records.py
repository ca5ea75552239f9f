"""What a record of the journal says about a job: as stored values, and as the job that follows from it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from bot.domain.models import TRANSITIONS, Job, Output, Picture, Step

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    Record = Mapping[str, Any]

_PICTURE = ("type", "width", "height", "size")


def record_of(job: Job, step: Step, now: datetime, **facts: Any) -> dict[str, Any]:
    """The record that says `step` has happened to `job`."""
    return {"job": job.id, "step": step.value, "at": now.timestamp(), **facts}


def apply(job: Job, record: Record, spool: Path) -> Job:
    """The job as it is once `record` is true of it; its picture is in the folder `spool`."""
    step, at = Step(record["step"]), recorded_at(record)
    job = replace(job, state=TRANSITIONS[step].target)
    match step:
        case Step.GENERATED:
            return replace(job, output=Output(record["url"], record["request_id"]), generated_at=at)
        case Step.SPOOLED:
            return replace(job, picture=picture_from(record, spool))
        case Step.PARKED:
            return replace(job, parked_at=at)
        case Step.DELIVERED:
            return replace(job, message_id=record["message_id"], ended_at=at, output=_left_of(job), picture=None)
        case Step.RELEASED:
            message_id = record.get("message_id") or job.message_id  # records of earlier versions do not have it
            ended = replace(job, reason=record["reason"], message_id=message_id, ended_at=at)
            return replace(ended, output=_left_of(job), picture=None)
        case _:
            return job


def _left_of(job: Job) -> Output | None:
    """The output after the job's end, as the database has it: only the request id is left."""
    known = job.output is not None and job.output.request_id
    return Output("", known) if known else None


def allows(job: Job, record: Record) -> bool:
    """Whether the job is in a state from which the record's step is allowed."""
    return job.state in TRANSITIONS[Step(record["step"])].sources


def recorded_at(record: Record) -> datetime:
    return datetime.fromtimestamp(record["at"], UTC)


def picture_facts(picture: Picture) -> dict[str, Any]:
    """A picture as a record holds it; `picture_from` reads it again."""
    return {name: getattr(picture, name) for name in _PICTURE} | {"file": picture.path.name}


def picture_from(record: Record, spool: Path) -> Picture:
    stored = record["picture"]
    return Picture(path=spool / stored["file"], **{name: stored[name] for name in _PICTURE})
