"""The totals that limits are checked against, compared with the entries that they sum up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import sqlite3

_STORED = "SELECT scope, subject, place, period, SUM(used) FROM totals GROUP BY 1, 2, 3, 4 HAVING SUM(used) <> 0"

# One line per scope; what an operator has settled as free is money that comes back without an entry.
SUMMED = """
    SELECT scope, subject, place, period, SUM(used) FROM (
        SELECT 'member' AS scope, member AS subject, 0 AS place, counted_on AS period, held + spent - extra AS used
        FROM entries
        UNION ALL SELECT 'member_here', member, guild_id, counted_on, held + spent - extra FROM entries
        WHERE guild_id IS NOT NULL
        UNION ALL SELECT 'guild', guild_id, 0, counted_on, held + spent FROM entries WHERE guild_id IS NOT NULL
        UNION ALL SELECT 'bot', 0, 0, counted_on, held + spent FROM entries
        UNION ALL SELECT 'money', 0, 0, counted_on, price FROM entries
        UNION ALL SELECT 'money', 0, 0, counted_on, -price FROM jobs
        WHERE id IN (SELECT job_id FROM settlements WHERE outcome = 'free')
        UNION ALL SELECT 'extra', member, guild_id, 0, extra FROM entries WHERE guild_id IS NOT NULL
        UNION ALL SELECT 'attempts', member, 0, counted_at / 3600000, 1 FROM entries WHERE kind = 'hold'
        UNION ALL SELECT mark, member, 0, counted_on, 1 FROM entries WHERE mark IS NOT NULL
    ) GROUP BY 1, 2, 3, 4 HAVING SUM(used) <> 0
"""


def unexplained(raw: sqlite3.Connection) -> list[Any]:
    """The totals that are not the sums of the entries, and the sums that have no total."""
    stored, summed = ({tuple(row) for row in raw.execute(sql)} for sql in (_STORED, SUMMED))
    return sorted(stored ^ summed)
