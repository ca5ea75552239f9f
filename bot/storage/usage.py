"""Adds up what a server's members have used, from the jobs and the sums of deleted ones."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from bot.domain.models import Model
from bot.domain.quota import number_of
from bot.domain.usage import Usage, Used

if TYPE_CHECKING:
    from bot.storage.database import Database

_USED = """
    SELECT counted_on, user_id, model, SUM(images) AS images, SUM(credits) AS credits FROM (
        SELECT counted_on, user_id, json_extract(request, '$.model') AS model, 1 AS images, cost AS credits FROM jobs
        WHERE guild_id = :guild_id AND counted_on BETWEEN :first AND :last AND state <> 'released'
        UNION ALL SELECT counted_on, user_id, model, images, credits FROM carried
        WHERE guild_id = :guild_id AND counted_on BETWEEN :first AND :last AND images <> 0
    )
    GROUP BY counted_on, user_id, model
"""


class UsageRecords:
    """Reads only; indexes by server and day bound what it reads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def usage(self, guild_id: int, *, first: date, last: date) -> Usage:
        """What was used from the day `first` to the day `last`, both included."""
        window = {"guild_id": guild_id, "first": number_of(first), "last": number_of(last)}
        rows = await self._database.run(_USED, window)
        used = [
            Used(_date(row["counted_on"]), row["user_id"], Model(row["model"]), row["images"], row["credits"])
            for row in rows
        ]
        return Usage(last, used)


def _date(number: int) -> date:
    return date(number // 10_000, number // 100 % 100, number % 100)
