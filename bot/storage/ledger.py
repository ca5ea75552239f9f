"""Jobs and entries: hold, charge, release; allowances as sums. One decision is one statement."""

from __future__ import annotations

import secrets
import sqlite3
from typing import TYPE_CHECKING, Any

from bot.domain.errors import AlreadyTaken, QuotaSpent, TransitionRefused
from bot.domain.models import OPEN_STATES, Allowance, Scope, State
from bot.domain.quota import binding
from bot.storage.job_rows import job_of, ms, row_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

    from bot.domain.models import Asker, Job, Limit, Output, Picture, ThumbnailRequest
    from bot.storage.database import Database, Transaction

_ALPHABET = "23456789abcdefghjkmnpqrstuvwxyz"  # no 0 o 1 i l: people read these ids aloud
_ID_LENGTHS = (4, 4, 5, 6, 8, 12)

_SUBJECT = {Scope.MEMBER: "user_id", Scope.GUILD: "guild_id"}

_USED = """
    SELECT COALESCE(SUM(held + spent), 0) FROM entries
    WHERE {subject} = :subject{n} AND counted_at >= :start{n} AND counted_at < :end{n}
"""

_RESERVE = """
    INSERT INTO jobs (
        id, interaction_id, reacted_to, parent_id, private, state, user_id, guild_id, channel_id, token, upload_limit,
        image_url, model, format, prompt, support_image_url, image_kept, support_kept, image_weight, persona, style,
        cost, asked_at, created_at
    )
    SELECT
        :id, :interaction_id, :reacted_to, :parent_id, :private, 'reserved', :user_id, :guild_id, :channel_id, :token,
        :upload_limit, :image_url, :model, :format, :prompt, :support_image_url, :image_kept, :support_kept,
        :image_weight, :persona, :style, :cost, :asked_at, :created_at
    WHERE {room}
    RETURNING *
"""

_TAKEN = """
    SELECT 1 FROM jobs
    WHERE interaction_id = :interaction_id OR (reacted_to = :reacted_to AND user_id = :user_id AND state <> 'released')
"""

_HOLD = """
    INSERT INTO entries (job_id, kind, user_id, guild_id, held, spent, counted_at, at)
    VALUES (:id, 'hold', :user_id, :guild_id, :cost, 0, :asked_at, :created_at)
"""

# A job's end and the entry that settles its hold go into one transaction.
_CHARGE = """
    INSERT INTO entries (job_id, kind, user_id, guild_id, held, spent, counted_at, at)
    SELECT id, 'charge', user_id, guild_id, -cost, cost, asked_at, ended_at FROM jobs WHERE id = ?
"""
_RELEASE = """
    INSERT INTO entries (job_id, kind, user_id, guild_id, held, spent, counted_at, at)
    SELECT id, 'release', user_id, guild_id, -cost, 0, asked_at, ended_at FROM jobs WHERE id = ?
"""


class Ledger:
    """The jobs table and its entries; `spool` is the folder that pictures of jobs lie in."""

    def __init__(self, database: Database, *, spool: Path) -> None:
        self._database = database
        self.spool = spool

    async def reserve(
        self,
        request: ThumbnailRequest,
        asker: Asker,
        *,
        cost: int,
        limits: Sequence[Limit],
        now: datetime,
        parent_id: str | None = None,
    ) -> Job:
        """Store a job and hold its cost, if every limit has room; raises `QuotaSpent`, `AlreadyTaken`."""

        def steps(transaction: Transaction) -> Job:
            row = row_of(request, asker, cost=cost, now=now, parent_id=parent_id)
            job = self._insert(transaction, row, limits)
            if job is None:
                if transaction.run(_TAKEN, row):
                    raise AlreadyTaken
                allowances = [_allowance(transaction, limit) for limit in limits]
                short = binding(allowances, cost) or allowances[0]
                raise QuotaSpent(short, cost)
            return job

        return await self._database.write(steps)

    def _insert(self, transaction: Transaction, row: dict[str, Any], limits: Sequence[Limit]) -> Job | None:
        room = " AND ".join(f"({_used(limit, n)}) + :cost <= :amount{n}" for n, limit in enumerate(limits)) or "TRUE"
        bounds = {key: value for n, limit in enumerate(limits) for key, value in _bounds(limit, n).items()}
        for length in _ID_LENGTHS:
            row["id"] = "".join(secrets.choice(_ALPHABET) for _ in range(length))
            try:
                stored = transaction.run(_RESERVE.format(room=room), row | bounds)
            except sqlite3.IntegrityError as error:
                if "jobs.interaction_id" in str(error) or "jobs.reacted_to" in str(error):
                    raise AlreadyTaken from None
                if "jobs.id" in str(error):
                    continue
                raise
            if not stored:
                return None
            transaction.run(_HOLD, row)
            return job_of(stored[0], self.spool)
        raise sqlite3.IntegrityError("no free job id")

    async def acked(self, job: Job, *, message_id: int) -> Job:
        return await self._move(job, (State.RESERVED,), State.ACKED, message_id=message_id)

    async def sending(self, job: Job, *, now: datetime) -> Job:
        return await self._move(job, (State.ACKED,), State.SENDING, sent_at=ms(now))

    async def generated(self, job: Job, output: Output, *, now: datetime) -> Job:
        return await self._move(
            job,
            (State.SENDING,),
            State.GENERATED,
            output_url=output.url,
            request_id=output.request_id,
            generated_at=ms(now),
        )

    async def spooled(self, job: Job, picture: Picture) -> Job:
        return await self._move(
            job,
            (State.GENERATED, State.SPOOLED),  # again, when the file was lost from the spool
            State.SPOOLED,
            picture_file=picture.path.name,
            picture_type=picture.type,
            picture_width=picture.width,
            picture_height=picture.height,
            picture_size=picture.size,
            picture_sha256=picture.sha256,
        )

    async def parked(self, job: Job, *, now: datetime) -> Job:
        """Nobody could be given the picture; the hold stays until it is claimed or released."""
        return await self._move(job, (State.SPOOLED,), State.SPOOLED, parked_at=ms(now))

    async def delivered(self, job: Job, *, message_id: int, now: datetime) -> Job:
        """The hold becomes a charge: Discord has confirmed the message `message_id` with the picture, which a full disk
        may have kept out of the spool.
        """
        return await self._end(
            job,
            _CHARGE,
            (State.GENERATED, State.SPOOLED),
            state=State.DELIVERED,
            message_id=message_id,
            reason=None,
            now=now,
        )

    async def released(self, job: Job, *, reason: str, request_id: str | None, now: datetime) -> Job:
        """The hold is given back, wherever the job stood."""
        return await self._end(
            job,
            _RELEASE,
            OPEN_STATES,
            state=State.RELEASED,
            message_id=None,
            reason=reason,
            now=now,
            request_id=request_id,
        )

    async def told(self, job: Job, *, now: datetime) -> None:
        """The person has read how the job ended; the interaction's token is of no more use."""
        sql = "UPDATE jobs SET told_at = ?, token = NULL WHERE id = ? AND state = ?"
        await self._database.run(sql, (ms(now), job.id, State.RELEASED))

    async def job(self, job_id: str) -> Job | None:
        rows = await self._database.run("SELECT * FROM jobs WHERE id = ?", (job_id,))
        return job_of(rows[0], self.spool) if rows else None

    async def open_jobs(self) -> list[Job]:
        """Every job that has not ended, oldest first."""
        rows = await self._database.run("SELECT * FROM jobs WHERE ended_at IS NULL ORDER BY created_at, rowid")
        return [job_of(row, self.spool) for row in rows]

    async def parked_jobs(self, user_id: int) -> list[Job]:
        """A member's finished pictures that wait for a claim, oldest first."""
        sql = "SELECT * FROM jobs WHERE user_id = ? AND parked_at IS NOT NULL AND ended_at IS NULL ORDER BY parked_at"
        return [job_of(row, self.spool) for row in await self._database.run(sql, (user_id,))]

    async def untold_jobs(self) -> list[Job]:
        """Every job that was released and whose asker has not been told yet, oldest first."""
        sql = "SELECT * FROM jobs WHERE state = 'released' AND told_at IS NULL ORDER BY ended_at"
        return [job_of(row, self.spool) for row in await self._database.run(sql)]

    async def allowances(self, limits: Sequence[Limit]) -> list[Allowance]:
        def steps(transaction: Transaction) -> list[Allowance]:
            return [_allowance(transaction, limit) for limit in limits]

        return await self._database.write(steps)

    async def fact(self, name: str) -> str | None:
        rows = await self._database.run("SELECT value FROM facts WHERE name = ?", (name,))
        return str(rows[0]["value"]) if rows else None

    async def remember(self, name: str, value: str) -> None:
        await self._database.run("INSERT OR REPLACE INTO facts (name, value) VALUES (?, ?)", (name, value))

    async def _move(self, job: Job, expected: Sequence[State], state: State, **columns: Any) -> Job:
        changes = ", ".join(f"{column} = ?" for column in columns)
        sql = f"UPDATE jobs SET state = ?, {changes} WHERE id = ? AND state IN ({_places(expected)}) RETURNING *"
        rows = await self._database.run(sql, (state, *columns.values(), job.id, *expected))
        if not rows:
            raise TransitionRefused(job.id, "/".join(expected))
        return job_of(rows[0], self.spool)

    async def _end(
        self,
        job: Job,
        entry: str,
        expected: Sequence[State],
        *,
        state: State,
        message_id: int | None,
        reason: str | None,
        now: datetime,
        request_id: str | None = None,
    ) -> Job:
        told = ms(now) if state is State.DELIVERED else None  # the picture speaks for itself
        sql = (
            "UPDATE jobs SET state = ?, message_id = COALESCE(?, message_id), reason = ?, ended_at = ?, told_at = ?,"
            " token = IIF(? IS NULL, token, NULL), request_id = COALESCE(request_id, ?)"
            f" WHERE id = ? AND state IN ({_places(expected)}) RETURNING *"
        )

        def steps(transaction: Transaction) -> Job:
            values = (state, message_id, reason, ms(now), told, told, request_id, job.id, *expected)
            rows = transaction.run(sql, values)
            if not rows:
                raise TransitionRefused(job.id, "/".join(expected))
            transaction.run(entry, (job.id,))
            return job_of(rows[0], self.spool)

        return await self._database.write(steps)


def _places(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


def _used(limit: Limit, n: int) -> str:
    return _USED.format(subject=_SUBJECT[limit.scope], n=n)


def _bounds(limit: Limit, n: int) -> dict[str, int]:
    return {
        f"subject{n}": limit.subject,
        f"start{n}": ms(limit.window.start),
        f"end{n}": ms(limit.window.end),
        f"amount{n}": limit.amount,
    }


def _allowance(transaction: Transaction, limit: Limit) -> Allowance:
    rows = transaction.run(_used(limit, 0), _bounds(limit, 0))
    return Allowance(limit, rows[0][0])
