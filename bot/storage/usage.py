"""Who used what in one server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bot.domain.models import Model
from bot.domain.quota import number_of
from bot.domain.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from bot.storage.database import Database, Transaction

_MEMBERS = 10

_BY_MODEL = """
    SELECT counted_on, request ->> 'model' AS model, SUM(cost) AS credits FROM jobs
    WHERE guild_id = ? AND counted_on BETWEEN ? AND ? AND state <> 'released' GROUP BY counted_on, model
"""
_BY_MEMBER = f"""
    SELECT user_id, SUM(cost) AS credits FROM jobs
    WHERE guild_id = ? AND counted_on BETWEEN ? AND ? AND state <> 'released'
    GROUP BY user_id HAVING credits > 0 ORDER BY credits DESC, user_id LIMIT {_MEMBERS}
"""


class UsageReports:
    """Sums over the jobs of a server."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def usage(self, guild_id: int, days: Sequence[date]) -> Usage:
        """What was used in a server on consecutive `days`, oldest first."""
        numbers = [number_of(day) for day in days]
        values = (guild_id, numbers[0], numbers[-1])

        def steps(transaction: Transaction) -> Usage:
            by_model = {model: [0] * len(days) for model in Model}
            for row in transaction.run(_BY_MODEL, values):
                by_model[Model(row["model"])][numbers.index(row["counted_on"])] = row["credits"]
            members = [(row["user_id"], row["credits"]) for row in transaction.run(_BY_MEMBER, values)]
            return Usage(days, by_model, members)

        return await self._database.write(steps)
