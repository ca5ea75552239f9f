"""How SQLite carries out a reservation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bot.storage.job_rows import row_from_request
from bot.storage.pseudonyms import member_key

if TYPE_CHECKING:
    from bot.domain.models import Reservation
    from bot.storage.database import Database
    from bot.storage.ledger import Ledger


async def reservation_plan(database: Database, ledger: Ledger, terms: Reservation) -> list[str]:
    """The lines of EXPLAIN QUERY PLAN for the statement that checks every limit and stores the job, indented."""
    sql, bounds = ledger._conditions(terms.limits, cost=terms.cost, price=terms.price)
    member = member_key(database.salt, terms.requester.user_id)
    row = row_from_request(terms) | bounds | {"id": "plan", "member": member}
    depths = {0: 0}
    lines = []
    for step in await database.run(f"EXPLAIN QUERY PLAN {sql}", row):
        depths[step["id"]] = depths[step["parent"]] + 1
        lines.append("  " * depths[step["parent"]] + step["detail"])
    return lines
