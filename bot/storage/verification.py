"""Looks through a copy of the database: whether it is whole, and whether its ledger is right."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from bot.domain.examination import Check, Examination
from bot.storage import integrity
from bot.storage.job_rows import maybe_time
from bot.storage.schema import newest_schema

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SUMS_SINCE = 7  # the schema whose totals say what deleted jobs have used

_HEAD = "SELECT (SELECT COUNT(*) FROM jobs), (SELECT COALESCE(MAX(id), 0) FROM entries), (SELECT MAX(at) FROM entries)"
_ENTRIES_OF_JOBS = """
    SELECT jobs.id FROM jobs LEFT JOIN (
        SELECT job_id, SUM(kind = 'hold') AS holds, SUM(kind = 'charge') AS charges, SUM(kind = 'release') AS releases,
            SUM(held) AS held, SUM(spent) AS spent
        FROM entries GROUP BY job_id
    ) ON job_id = jobs.id
"""
# Each delivered job has one charge, each released one a release, and nothing else ends a hold.
_WRONG_ENDS = f"""
    {_ENTRIES_OF_JOBS}
    WHERE COALESCE(holds, 0) <> 1 OR charges <> (state = 'delivered') OR releases <> (state = 'released') LIMIT 1
"""
_WRONG_CREDITS = f"""
    {_ENTRIES_OF_JOBS}
    WHERE held <> IIF(ended_at IS NULL, cost, 0) OR spent <> IIF(state = 'delivered', cost, 0) LIMIT 1
"""
# What everyone together has used is kept as sums, by day. The oldest sums are deleted, and never in the middle.
_SUMS = """
    WITH stored (period, used) AS (SELECT period, used FROM totals WHERE scope = '{scope}')
    SELECT period FROM (SELECT period, SUM(amount) AS amount FROM ({rows}) GROUP BY period)
    LEFT JOIN stored USING (period)
    WHERE period >= (SELECT MIN(period) FROM stored) AND amount <> COALESCE(used, 0) LIMIT 1
"""
_CREDITS_BY_DAY = """
    SELECT counted_on AS period, held + spent AS amount FROM entries
    UNION ALL SELECT counted_on, credits FROM carried
"""
_MONEY_BY_DAY = """
    SELECT counted_on AS period, price AS amount FROM entries
    UNION ALL SELECT counted_on, paid FROM carried
    UNION ALL SELECT counted_on, -price FROM jobs WHERE id IN (SELECT job_id FROM settlements WHERE outcome = 'free')
"""


def examined(path: Path) -> Examination:
    """Look through the copy at `path`, which nothing changes meanwhile. This may take a minute per gigabyte,
    and a Ctrl-C ends it.
    """
    try:
        with closing(integrity.unchanging(path)) as connection:
            return integrity.interruptible(connection, examine)
    except (OSError, sqlite3.Error) as error:
        return Examination([(Check.FILE, f"it cannot be opened ({_clause(error)})")])


def examine(connection: sqlite3.Connection) -> Examination:
    """Look through a database with a connection of its own. The first check that fails is the last that is made, unless
    the others can be made without it.
    """
    try:
        [[schema]] = connection.execute("PRAGMA user_version").fetchall()
        newest = newest_schema()
        if schema > newest:
            problem = f"it was written by a newer version of this program (schema {schema}, this one knows {newest})"
            return Examination([(Check.FILE, None), (Check.SCHEMA, problem)], schema)
        if schema < 1 or not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'jobs'").fetchall():
            return Examination([(Check.FILE, None), (Check.SCHEMA, "it is no database of this program")], schema)
        found = [(Check.FILE, None), (Check.SCHEMA, None), (Check.PAGES, integrity.damage(connection))]
        if found[-1][1] is not None:
            return Examination(found, schema)
        [[jobs, last_entry, last_change]] = connection.execute(_HEAD).fetchall()
        return Examination([*found, *_ledger(connection, schema)], schema, jobs, last_entry, maybe_time(last_change))
    except sqlite3.Error as error:
        return Examination([(Check.FILE, f"it cannot be read ({_clause(error)})")])


def _ledger(connection: sqlite3.Connection, schema: int) -> Iterator[tuple[Check, str | None]]:
    for check, sql, problem in (
        (Check.REFERENCES, "PRAGMA foreign_key_check", "a row of the table {} refers to nothing"),
        (Check.ENDS, _WRONG_ENDS, "the entries of job {} do not fit its state"),
        (Check.CREDITS, _WRONG_CREDITS, "the credits of job {} do not add up"),
    ):
        yield check, _first(connection, sql, problem)
    if schema >= _SUMS_SINCE:
        for check, scope, rows in ((Check.TOTALS, "bot", _CREDITS_BY_DAY), (Check.MONEY, "money", _MONEY_BY_DAY)):
            sql = _SUMS.format(rows=rows, scope=scope)
            yield check, _first(connection, sql, "the entries of the day {} do not add up to its sum")


def _first(connection: sqlite3.Connection, sql: str, problem: str) -> str | None:
    row = connection.execute(sql).fetchone()
    return None if row is None else problem.format(row[0])


def _clause(error: Exception) -> str:
    return str(error) if isinstance(error, sqlite3.Error) else type(error).__name__
