"""What was spent, by whom, and what of it is not certain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bot.domain.failure_policy import UNKNOWN_REASONS
from bot.domain.spending import Spent, UnknownJob, Waiting
from bot.storage.job_rows import maybe_time, ms, time_of

if TYPE_CHECKING:
    from datetime import datetime

    from bot.domain.models import Requester, Window
    from bot.domain.spending import Settlement
    from bot.storage.database import Database, Row

# The entries that are still stored, and the sums of the others.
_SPENT = """
    SELECT subject, SUM(credits) AS credits, SUM(paid) AS paid FROM (
        SELECT {subject} AS subject, held + spent AS credits, entries.price - COALESCE(
            CASE WHEN kind = 'hold' THEN
                (SELECT jobs.price FROM settlements JOIN jobs ON jobs.id = settlements.job_id
                 WHERE settlements.job_id = entries.job_id AND outcome = 'free')
            END, 0
        ) AS paid
        FROM entries WHERE counted_on BETWEEN :first AND :last
        UNION ALL SELECT {subject}, credits, paid FROM carried WHERE counted_on BETWEEN :first AND :last
    )
    GROUP BY subject HAVING SUM(credits) <> 0 OR SUM(paid) <> 0
    ORDER BY SUM(paid) DESC, SUM(credits) DESC, subject LIMIT :count
"""

# Their index is named, or the planner would prefer the one over all ends.
_UNKNOWN = f"""
    SELECT id, sent_at, ended_at, request_id, price FROM jobs INDEXED BY jobs_unknown
    WHERE reason IN {UNKNOWN_REASONS} AND NOT EXISTS (SELECT 1 FROM settlements WHERE job_id = jobs.id)
    ORDER BY ended_at LIMIT ?
"""

_SETTLE = f"""
    INSERT INTO settlements (job_id, outcome, actor, at)
    SELECT id, ?, ?, ? FROM jobs WHERE id = ? AND reason IN {UNKNOWN_REASONS}
    ON CONFLICT DO NOTHING RETURNING job_id
"""


class Spending:
    """The operator's view of the ledger; whoever waits for its balance is in here too."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def by_server(self, window: Window, *, count: int) -> list[Spent]:
        """The servers that used the most in a window, the dearest first; a server that is gone is 0."""
        return await self._spent("COALESCE(guild_id, 0)", window, count)

    async def by_member(self, window: Window, *, count: int) -> list[Spent]:
        """The members that used the most in a window; whoever had their data deleted is 0."""
        return await self._spent("user_id", window, count)

    async def _spent(self, subject: str, window: Window, count: int) -> list[Spent]:
        sql = _SPENT.format(subject=subject)
        rows = await self._database.run(sql, {"first": window.first, "last": window.last, "count": count})
        return [Spent(row["subject"], row["credits"], row["paid"]) for row in rows]

    async def unknown_jobs(self, *, count: int) -> list[UnknownJob]:
        """The jobs to reconcile, oldest first."""
        return [_unknown(row) for row in await self._database.run(_UNKNOWN, (count,))]

    async def settle(self, job_id: str, outcome: Settlement, *, actor: int, now: datetime) -> bool:
        """Record what became of such a job; False if there is none, or it has been settled."""
        return bool(await self._database.run(_SETTLE, (outcome, actor, ms(now), job_id)))

    # --- waiting for the balance -------------------------------------------------------------------------------------

    async def remember_refused(self, requester: Requester, *, now: datetime) -> None:
        """Somebody was refused because the balance is empty; once is enough."""
        values = (requester.user_id, requester.guild_id, requester.channel_id, requester.locale, ms(now))
        await self._database.run("INSERT OR REPLACE INTO waiting_for_balance VALUES (?, ?, ?, ?, ?)", values)

    async def anybody_refused(self, since: datetime) -> bool:
        """Whether anybody was refused since then."""
        sql = "SELECT 1 FROM waiting_for_balance WHERE at >= ? LIMIT 1"
        return bool(await self._database.run(sql, (ms(since),)))

    async def take_refused(self, since: datetime) -> list[Waiting]:
        """Everyone who was refused since then; from now on nobody was."""
        sql = "DELETE FROM waiting_for_balance RETURNING *"
        rows = await self._database.run(sql)
        return [Waiting(row["user_id"], row["channel_id"], row["locale"]) for row in rows if row["at"] >= ms(since)]


def _unknown(row: Row) -> UnknownJob:
    return UnknownJob(
        row["id"], maybe_time(row["sent_at"]), time_of(row["ended_at"]), row["request_id"], price=row["price"]
    )
