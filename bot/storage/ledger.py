"""Jobs and ledger entries: hold, charge, release; allowances as sums. One decision is one statement."""

from __future__ import annotations

import secrets
import sqlite3
from typing import TYPE_CHECKING, Any

from bot.domain.errors import DuplicateRequest, QuotaExceeded, TransitionRefused
from bot.domain.failure_policy import GIVEN_UP_REASONS, STRIKE_REASON, UNKNOWN_REASONS
from bot.domain.models import OF_MEMBERS, TRANSITIONS, Allowance, Scope, Step
from bot.domain.quota import binding_limit, needed
from bot.storage.job_rows import job_from_row, ms, row_from_request
from bot.storage.pseudonyms import member_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from bot.domain.models import Claim, Job, Limit, Output, Picture, Reservation
    from bot.storage.database import Database, Row, Transaction

_ALPHABET = "23456789abcdefghjkmnpqrstuvwxyz"  # no 0 o 1 i l: people read these ids aloud
_ID_LENGTHS = (4, 4, 5, 6, 8, 12)

_BY_MEMBER = (*OF_MEMBERS, Scope.ATTEMPTS, Scope.UNKNOWN, Scope.STRIKES)

_USED = """
    SELECT COALESCE(SUM(used), 0) FROM totals
    WHERE scope = :scope{n} AND subject = :subject{n} AND place = :place{n} AND period BETWEEN :first{n} AND :last{n}
"""

# A member's extra credits in one server.
_EXTRA = """
    SELECT
        (SELECT COALESCE(SUM(amount), 0) FROM grants WHERE member = :member AND guild_id = :guild_id)
        - COALESCE((
            SELECT used FROM totals WHERE scope = 'extra' AND subject = :member AND place = :guild_id AND period = 0
        ), 0)
"""

# What the member's own limits have no room for comes from the extra credits.
_RESERVE = """
    WITH balance (extra) AS MATERIALIZED ({extra}), lacking (credits) AS MATERIALIZED (SELECT {lacking})
    INSERT INTO jobs (
        id, interaction_id, reacted_to, parent_id, private, state, user_id, guild_id, channel_id, token, locale,
        upload_limit, operation, request, cost, asked_at, created_at, member, counted_on, price, spoiler, extra
    )
    SELECT
        :id, :interaction_id, :reacted_to, :parent_id, :private, 'reserved', :user_id, :guild_id, :channel_id, :token,
        :locale, :upload_limit, :operation, :request, :cost, :asked_at, :created_at, :member, :counted_on, :price,
        :spoiler, MIN(:cost, MAX(0, lacking.credits))
    FROM balance, lacking
    WHERE (lacking.credits <= 0 OR balance.extra >= MAX(1, MIN(:cost, lacking.credits))) AND {room}
    RETURNING *
"""

_ACCEPTED_BEFORE = """
    SELECT 1 FROM jobs
    WHERE interaction_id = :interaction_id OR (reacted_to = :reacted_to AND user_id = :user_id AND state <> 'released')
"""

_HOLD = """
    INSERT INTO entries
        (job_id, kind, user_id, guild_id, held, spent, counted_at, at, member, counted_on, extra, price)
    VALUES (
        :id, 'hold', :user_id, :guild_id, :cost, 0, :asked_at, :created_at, :member, :counted_on,
        (SELECT extra FROM jobs WHERE id = :id), :price
    )
"""

# What nobody needs any more after a job's end; the provider's URL lets anyone have the picture for a day.
_GONE = dict.fromkeys(
    (
        *("output_url", "picture_file", "picture_type", "picture_width", "picture_height"),
        *("picture_size", "picture_sha256"),
    )
)

# A job's end and the entry that settles its hold go into one transaction.
_CHARGE = """
    INSERT INTO entries (job_id, kind, user_id, guild_id, held, spent, counted_at, at, member, counted_on)
    SELECT id, 'charge', user_id, guild_id, -cost, cost, asked_at, ended_at, member, counted_on FROM jobs WHERE id = ?
"""
# The operator pays for every image that was made, and perhaps for one whose outcome is unknown.
RELEASE = f"""
    INSERT INTO entries
        (job_id, kind, user_id, guild_id, held, spent, counted_at, at, member, counted_on, extra, price, mark)
    SELECT
        id, 'release', user_id, guild_id, -cost, 0, asked_at, ended_at, member, counted_on, -extra,
        IIF(generated_at IS NOT NULL OR reason IN {UNKNOWN_REASONS}, 0, -price),
        CASE
            WHEN reason IN {UNKNOWN_REASONS} THEN 'unknown'
            WHEN reason IN {GIVEN_UP_REASONS} AND generated_at IS NOT NULL THEN 'unknown'
            WHEN reason = '{STRIKE_REASON}' THEN 'strike'
        END
    FROM jobs WHERE id = ?
"""


class Ledger:
    """The jobs table and its entries; `spool` is the folder of the jobs' pictures."""

    def __init__(self, database: Database, *, spool: Path) -> None:
        self._database = database
        self.spool = spool

    @property
    def damage(self) -> str | None:
        """What is damaged in the database, as far as it is known."""
        return self._database.damage

    async def reserve(self, reservation: Reservation) -> Job:
        """Store a job and hold its cost, if every limit has room; raises `QuotaExceeded`, `DuplicateRequest`."""

        def steps(transaction: Transaction) -> Job:
            row = row_from_request(reservation) | {"member": self._key(reservation.requester.user_id)}
            job = self._insert(transaction, row, reservation.limits, price=reservation.price)
            if job is None:
                if transaction.run(_ACCEPTED_BEFORE, row):
                    raise DuplicateRequest
                allowances = [self._allowance(transaction, limit) for limit in reservation.limits]
                short = binding_limit(allowances, reservation.cost, reservation.price) or allowances[0]
                raise QuotaExceeded(short, reservation.cost)
            return job

        return await self._database.write(steps)

    def _insert(
        self, transaction: Transaction, row: dict[str, Any], limits: Sequence[Limit], *, price: int
    ) -> Job | None:
        sql, bounds = self._conditions(limits, cost=row["cost"], price=price)
        for length in _ID_LENGTHS:
            row["id"] = "".join(secrets.choice(_ALPHABET) for _ in range(length))
            try:
                stored = transaction.run(sql, row | bounds)
            except sqlite3.IntegrityError as error:
                if "jobs.interaction_id" in str(error) or "jobs.reacted_to" in str(error):
                    raise DuplicateRequest from None
                if "jobs.id" in str(error):
                    continue
                raise
            if not stored:
                return None
            transaction.run(_HOLD, row)
            return job_from_row(stored[0], self.spool)
        raise sqlite3.IntegrityError("no free job id")

    def _conditions(self, limits: Sequence[Limit], *, cost: int, price: int) -> tuple[str, dict[str, Any]]:
        """The statement that takes what a request costs if every limit has room, and its named values."""
        room, lacking, bounds = ["TRUE"], ["0", "0"], dict[str, Any]()
        for n, limit in enumerate(limits):
            bounds |= self._bounds(limit, n) | {f"amount{n}": limit.amount}
            if limit.scope in OF_MEMBERS:
                lacking.append(f"({_USED.format(n=n)}) + :cost - :amount{n}")
            else:
                bounds[f"need{n}"] = needed(limit.scope, cost, price)
                room.append(f"({_USED.format(n=n)}) + :need{n} <= :amount{n}")
        return _RESERVE.format(extra=_EXTRA, lacking=f"MAX({', '.join(lacking)})", room=" AND ".join(room)), bounds

    def _key(self, user_id: int) -> int:
        return member_key(self._database.salt, user_id)

    def _bounds(self, limit: Limit, n: int) -> dict[str, Any]:
        window = limit.window
        return {
            f"scope{n}": limit.scope.value,
            f"subject{n}": self._key(limit.subject) if limit.scope in _BY_MEMBER else limit.subject,
            f"place{n}": limit.place if limit.scope is Scope.MEMBER_HERE else 0,
            f"first{n}": window.first,
            f"last{n}": window.last,
        }

    def _allowance(self, transaction: Transaction, limit: Limit) -> Allowance:
        [[used]] = transaction.run(_USED.format(n=0), self._bounds(limit, 0))
        if limit.scope not in OF_MEMBERS:
            return Allowance(limit, used)
        [[extra]] = transaction.run(_EXTRA, {"member": self._key(limit.subject), "guild_id": limit.place})
        return Allowance(limit, used, extra)

    async def acked(self, job: Job, *, message_id: int) -> Job:
        return await self._move(job, Step.ACKED, message_id=message_id)

    async def sending(self, job: Job, *, now: datetime) -> Job:
        """The call is about to be made. The job's message is recorded with it, unless that was done before."""
        return await self._move(job, Step.SENDING, sent_at=ms(now), **_message_of(job))

    async def generated(self, job: Job, output: Output, *, now: datetime) -> Job:
        return await self._move(
            job, Step.GENERATED, output_url=output.url, request_id=output.request_id, generated_at=ms(now)
        )

    async def spooled(self, job: Job, picture: Picture) -> Job:
        return await self._move(
            job,
            Step.SPOOLED,
            picture_file=picture.path.name,
            picture_type=picture.type,
            picture_width=picture.width,
            picture_height=picture.height,
            picture_size=picture.size,
        )

    async def parked(self, job: Job, *, now: datetime) -> Job:
        """The picture could not be delivered; the hold stays until it is claimed or released."""
        return await self._move(job, Step.PARKED, parked_at=ms(now))

    async def claiming(self, job: Job, claim: Claim | None) -> Job:
        """The kept picture is about to be handed over there; None: it certainly was not."""
        sql = """
            UPDATE jobs SET claim_token = ?, claim_limit = ?, claimed_at = ?
            WHERE id = ? AND parked_at IS NOT NULL AND ended_at IS NULL RETURNING *
        """
        values = (None, None, None) if claim is None else (claim.token, claim.upload_limit, ms(claim.at))
        rows = await self._database.run(sql, (*values, job.id))
        return self._moved(job, Step.PARKED, rows)

    async def delivered(self, job: Job, *, message_id: int, now: datetime) -> Job:
        """The hold becomes a charge: Discord has confirmed the message `message_id` that carries the picture."""
        return await self._end(
            job,
            Step.DELIVERED,
            _CHARGE,
            message_id=message_id,
            ended_at=ms(now),
            notified_at=ms(now),  # the picture speaks for itself
            token=None,
            claim_token=None,
            **_GONE,
        )

    async def released(self, job: Job, *, reason: str, request_id: str | None, now: datetime) -> Job:
        """The hold is released, whatever state the job was in. Its message is recorded too, if it is known."""
        known = request_id is None or (job.output is not None and job.output.request_id is not None)
        columns = _message_of(job) if known else {**_message_of(job), "request_id": request_id}
        return await self._end(job, Step.RELEASED, RELEASE, reason=reason, ended_at=ms(now), **columns, **_GONE)

    async def notified(self, job: Job, *, now: datetime) -> None:
        """The requester has been shown how the job ended; the interaction's token is no longer needed."""
        erased = "notified_at = ?, token = NULL, claim_token = NULL"
        sql = f"UPDATE jobs SET {erased} WHERE id = ? AND {_allowed(Step.NOTIFIED)}"
        await self._database.run(sql, (ms(now), job.id, *TRANSITIONS[Step.NOTIFIED].sources))

    async def job(self, job_id: str) -> Job | None:
        rows = await self._database.run("SELECT * FROM jobs WHERE id = ?", (job_id,))
        return job_from_row(rows[0], self.spool) if rows else None

    async def open_jobs(self) -> list[Job]:
        """Every job that has not ended, oldest first."""
        rows = await self._database.run("SELECT * FROM jobs WHERE ended_at IS NULL ORDER BY created_at, rowid")
        return [job_from_row(row, self.spool) for row in rows]

    async def parked_jobs(self, user_id: int) -> list[Job]:
        """A member's pictures that wait for a claim, oldest first."""
        sql = "SELECT * FROM jobs WHERE user_id = ? AND parked_at IS NOT NULL AND ended_at IS NULL ORDER BY parked_at"
        return [job_from_row(row, self.spool) for row in await self._database.run(sql, (user_id,))]

    async def unnotified_jobs(self) -> list[Job]:
        """Every released job whose requester has not been notified yet, oldest first."""
        sql = "SELECT * FROM jobs WHERE state = 'released' AND notified_at IS NULL ORDER BY ended_at"
        return [job_from_row(row, self.spool) for row in await self._database.run(sql)]

    async def allowances(self, limits: Sequence[Limit]) -> list[Allowance]:
        def steps(transaction: Transaction) -> list[Allowance]:
            return [self._allowance(transaction, limit) for limit in limits]

        return await self._database.write(steps)

    async def get_value(self, name: str) -> str | None:
        rows = await self._database.run("SELECT value FROM facts WHERE name = ?", (name,))
        return str(rows[0]["value"]) if rows else None

    async def set_value(self, name: str, value: str) -> None:
        await self._database.run("INSERT OR REPLACE INTO facts (name, value) VALUES (?, ?)", (name, value))

    async def _move(self, job: Job, step: Step, **columns: Any) -> Job:
        sql, values = _transition(job, step, columns)
        return self._moved(job, step, await self._database.run(sql, values))

    async def _end(self, job: Job, step: Step, entry: str, **columns: Any) -> Job:
        """Move a job to its end, with the entry that settles its hold in the same transaction."""
        sql, values = _transition(job, step, columns)

        def steps(transaction: Transaction) -> Job:
            ended = self._moved(job, step, transaction.run(sql, values))
            transaction.run(entry, (job.id,))
            return ended

        return await self._database.write(steps)

    def _moved(self, job: Job, step: Step, rows: Sequence[Row]) -> Job:
        if not rows:
            raise TransitionRefused(job.id, "/".join(TRANSITIONS[step].sources))
        return job_from_row(rows[0], self.spool)


def _message_of(job: Job) -> dict[str, Any]:
    return {} if job.message_id is None else {"message_id": job.message_id}


def _transition(job: Job, step: Step, columns: Mapping[str, Any]) -> tuple[str, tuple[Any, ...]]:
    """One statement for one transition: it changes nothing unless the job is in a state that allows the step."""
    changes = ", ".join(f"{column} = ?" for column in columns)
    sql = f"UPDATE jobs SET state = ?, {changes} WHERE id = ? AND {_allowed(step)} RETURNING *"
    transition = TRANSITIONS[step]
    return sql, (transition.target, *columns.values(), job.id, *transition.sources)


def _allowed(step: Step) -> str:
    return f"state IN ({', '.join('?' * len(TRANSITIONS[step].sources))})"
