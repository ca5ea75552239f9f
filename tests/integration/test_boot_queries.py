"""How long a start takes does not depend on how many jobs have ended: it finds what it needs by an index."""

from __future__ import annotations

import sqlite3
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from tests.support.e2e import running

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

LARGE = ("jobs", "entries", "totals", "audit", "grants", "settlements", "drafts", "carried")


class Recorded(sqlite3.Connection):
    """A connection that records what it is asked for, and how SQLite finds it."""

    plans: ClassVar[dict[str, list[str]]]

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        cursor = super().execute(sql, parameters)
        if sql.lstrip().startswith(("SELECT", "WITH", "UPDATE", "DELETE")):
            self.plans[sql] = [row[3] for row in super().execute(f"EXPLAIN QUERY PLAN {sql}", parameters)]
        return cursor


async def test_a_start_scans_no_table_that_grows_with_the_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path, monkeypatch) as live:
        await live.made()
    Recorded.plans = {}
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Recorded))
    async with running(tmp_path, monkeypatch) as live:
        await live.app.client.services.recovery.recover()
    plans = Recorded.plans
    assert any("FROM jobs WHERE ended_at IS NULL" in sql for sql in plans)
    assert any("notified_at IS NULL" in sql for sql in plans)
    scans = {step for steps in plans.values() for step in steps if step.startswith("SCAN")}
    large = {step for step in scans if step.split()[1] in LARGE}
    assert large == {"SCAN jobs USING INDEX jobs_open", "SCAN jobs USING INDEX jobs_unnotified"}, "of open ones only"
