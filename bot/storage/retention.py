"""Deletes what has been kept long enough, in slices: others' transactions go in between."""

from __future__ import annotations

import json
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from bot.storage.job_rows import ms, time_of

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from bot.domain.privacy import RetentionRules
    from bot.storage.database import Database, Row, Transaction
    from bot.storage.policies import Policies

_SLICE = 50  # rows deleted in one transaction: it takes some milliseconds, and nobody waits longer
_READ = 1000
_TOTALS_LIFE = timedelta(days=62)  # the longest window is a month
_WAITING_LIFE = timedelta(hours=1)  # who has waited longer is not told any more
_LOOK_EVERY = timedelta(days=1)

# Jobs are stored in the order of time, nearly: only the oldest are looked at. No job is ever stored between two others,
# so `beyond` is the last of those that are too many. The last entry stays, because by its number an older copy of the
# database is recognized.
_OLD_JOBS = f"""
    WITH oldest AS (SELECT rowid, id, ended_at, counted_on FROM jobs WHERE rowid > :after ORDER BY rowid LIMIT {_SLICE})
    SELECT rowid, id, counted_on,
        (ended_at < :before AND counted_on < :day OR ended_at NOT NULL AND rowid <= :beyond)
        AND id <> (SELECT job_id FROM entries ORDER BY id DESC LIMIT 1) AS is_old
    FROM oldest
"""
_LAST_JOB = "SELECT COALESCE(MAX(rowid), 0) FROM jobs"
_KEPT_FROM = "INSERT OR REPLACE INTO facts (name, value) VALUES ('kept-from', ?)"
_ALL_KEPT = "DELETE FROM facts WHERE name = 'kept-from'"
# What counts of jobs that are to be deleted.
_CARRY = """
    INSERT INTO carried (guild_id, counted_on, user_id, model, images, credits, paid)
    SELECT guild_id, counted_on, user_id, model, SUM(image) AS images, SUM(credits) AS credits, SUM(paid) AS paid FROM (
        SELECT
            COALESCE(guild_id, 0) AS guild_id, counted_on, user_id,
            COALESCE(json_extract(request, '$.model'), '') AS model, state = 'delivered' AS image,
            (SELECT COALESCE(SUM(held + spent), 0) FROM entries WHERE job_id = jobs.id) AS credits,
            (SELECT COALESCE(SUM(price), 0) FROM entries WHERE job_id = jobs.id)
            - price * EXISTS (SELECT 1 FROM settlements WHERE job_id = jobs.id AND outcome = 'free') AS paid
        FROM jobs WHERE id IN (SELECT value FROM json_each(?))
    )
    GROUP BY 1, 2, 3, 4 HAVING SUM(image) <> 0 OR SUM(credits) <> 0 OR SUM(paid) <> 0
    ON CONFLICT (guild_id, counted_on, user_id, model) WHERE user_id <> 0 DO UPDATE SET
        images = images + excluded.images, credits = credits + excluded.credits, paid = paid + excluded.paid
"""
_OLD_CARRIED = f"""
    DELETE FROM carried WHERE rowid IN (SELECT rowid FROM carried WHERE counted_on < ? LIMIT {_SLICE}) RETURNING 1
"""
# What refers to a job goes first.
_DELETE_JOB = (
    "DELETE FROM settlements WHERE job_id = ?",
    "DELETE FROM entries WHERE job_id = ?",
    "UPDATE jobs SET parent_id = NULL WHERE parent_id = ?",
    "DELETE FROM jobs WHERE id = ?",
)
_OLD_AUDIT = f"""
    DELETE FROM audit WHERE id IN (
        SELECT id FROM (SELECT id, at FROM audit ORDER BY id LIMIT {_SLICE}) WHERE at < ?
    ) RETURNING id
"""
_EXPIRED_BLOCKS = "DELETE FROM blocks WHERE until < ?"
_LONG_WAITING = "DELETE FROM waiting_for_balance WHERE at < ?"
_TOTALS = f"""
    SELECT scope, subject, place, period FROM totals WHERE (scope, subject, place, period) > (?, ?, ?, ?)
    ORDER BY scope, subject, place, period LIMIT {_READ}
"""
_FIRST_TOTAL = ("", 0, 0, 0)
_DELETE_TOTAL = "DELETE FROM totals WHERE scope = ? AND subject = ? AND place = ? AND period = ?"

_OF_SERVER = ("server_limits", "presets", "blocks", "audit", "servers")
_LOOKED_AT = "SELECT CAST(value AS INTEGER) FROM facts WHERE name = 'servers-seen'"
_LOOK = "INSERT OR REPLACE INTO facts (name, value) VALUES ('servers-seen', ?)"
_SEEN = "INSERT INTO servers (guild_id, seen_at) VALUES (?, ?) ON CONFLICT DO UPDATE SET seen_at = excluded.seen_at"
# A server that left before it was first seen: its time begins now.
_UNSEEN = f"""
    INSERT INTO servers (guild_id, seen_at)
    SELECT guild_id, ? FROM ({" UNION ".join(f"SELECT guild_id FROM {table}" for table in _OF_SERVER)})
    WHERE guild_id <> 0 ON CONFLICT DO NOTHING
"""
_LEFT = "SELECT guild_id FROM servers WHERE seen_at < ? AND guild_id <> 0"


class Retention:
    """Old jobs with everything that refers to them, and what is stored for servers that the bot has left."""

    def __init__(self, database: Database, *, policies: Policies, rules: RetentionRules) -> None:
        self._database = database
        self._policies = policies
        self._rules = rules

    async def sweep(self, *, now: datetime) -> int:
        """Delete what is too old, and the oldest of too many jobs; returns how many jobs. Call it now and then. What is
        still counted stays counted: the sums of the last two months, and what is used of extra credits.
        """
        before = now - self._rules.jobs
        deleted = await self._delete_jobs(before)
        while len(await self._database.run(_OLD_AUDIT, (ms(before),))) == _SLICE:
            pass
        await self._database.run(_EXPIRED_BLOCKS, (ms(now),))
        await self._database.run(_LONG_WAITING, (ms(now - _WAITING_LIFE),))
        await self._delete_totals(now - _TOTALS_LIFE)
        while len(await self._database.run(_OLD_CARRIED, (_day(now - _TOTALS_LIFE),))) == _SLICE:
            pass
        return deleted

    async def _delete_jobs(self, before: datetime) -> int:
        [[last]] = await self._database.run(_LAST_JOB)
        beyond = last - self._rules.most_jobs
        values = {"before": ms(before), "day": _day(before), "beyond": beyond, "after": 0}
        deleted = 0
        while True:
            rows = await self._database.run(_OLD_JOBS, values)
            old = [row for row in rows if row["is_old"]]
            if not old:
                return deleted
            await self._database.write(partial(_delete_jobs, old=old))
            deleted += len(old)
            values["after"] = rows[-1]["rowid"]

    async def _delete_totals(self, before: datetime) -> None:
        oldest = {"attempts": ms(before) // 3_600_000}
        after: Sequence[object] = _FIRST_TOTAL
        while rows := await self._database.run(_TOTALS, tuple(after)):
            old = [
                row
                for row in rows
                if row["scope"] != "extra" and row["period"] < oldest.get(row["scope"], _day(before))
            ]
            if old:
                await self._database.write(partial(_delete_totals, old=old))
            after = rows[-1]

    # --- servers -----------------------------------------------------------------------------------------------------

    async def is_due(self, *, now: datetime) -> bool:
        """Whether it is a day since `note_servers`."""
        rows = await self._database.run(_LOOKED_AT)
        return not rows or now >= time_of(rows[0][0]) + _LOOK_EVERY

    async def note_servers(self, joined: Collection[int], *, now: datetime) -> int:
        """Note which servers the bot is in, and delete what is stored for those in which it was not seen for long;
        returns how many servers those were.
        """
        ids = list(joined)
        for start in range(0, len(ids), _SLICE):
            await self._database.write(partial(_note, ids=ids[start : start + _SLICE], at=ms(now)))
        await self._database.run(_UNSEEN, (ms(now),))
        left = [row[0] for row in await self._database.run(_LEFT, (ms(now - self._rules.left_servers),))]
        for guild_id in left:
            await self._database.write(partial(_delete_server, guild_id=guild_id))
        self._policies.forget_cached()
        await self._database.run(_LOOK, (str(ms(now)),))
        return len(left)


def _day(at: datetime) -> int:
    """The day as jobs and totals have it. Time zones differ by a day at most, which nobody minds after weeks."""
    return int(at.strftime("%Y%m%d"))


def _delete_jobs(transaction: Transaction, *, old: Sequence[Row]) -> None:
    """Delete jobs and all that is known of them but their sums. Entries can be deleted in here alone."""
    transaction.run(_KEPT_FROM, (str(1 + max(row["counted_on"] for row in old)),))
    transaction.run(_CARRY, (json.dumps([row["id"] for row in old]),))
    for row in old:
        for sql in _DELETE_JOB:
            transaction.run(sql, (row["id"],))
    transaction.run(_ALL_KEPT)


def _delete_totals(transaction: Transaction, *, old: Sequence[Row]) -> None:
    for row in old:
        transaction.run(_DELETE_TOTAL, tuple(row))


def _note(transaction: Transaction, *, ids: Sequence[int], at: int) -> None:
    for guild_id in ids:
        transaction.run(_SEEN, (guild_id, at))


def _delete_server(transaction: Transaction, *, guild_id: int) -> None:
    for table in _OF_SERVER:
        transaction.run(f"DELETE FROM {table} WHERE guild_id = ?", (guild_id,))
