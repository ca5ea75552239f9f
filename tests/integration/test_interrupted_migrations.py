"""A database of every earlier schema is migrated, whatever statement of the migration a kill comes after."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from functools import partial
from importlib import resources
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from bot.storage import opening, verification
from bot.storage.pseudonyms import member_key
from tests.integration.test_migrations import create_schema_1

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = "bot.sqlite3"
FILES = resources.files("bot.storage").joinpath("migrations", "sqlite")
SCRIPTS = {int(file.name[:4]): file.read_text("utf-8") for file in FILES.iterdir() if file.name.endswith(".sql")}
ENDED = {"ended_at": 5, "told_at": 5}
JOBS: dict[str, dict[str, Any]] = {
    "rsvd": {"state": "reserved"},
    "sndg": {"state": "sending", "sent_at": 3},
    "dvrd": {"state": "delivered", "message_id": 5, **ENDED},
    "rlsd": {"state": "released", "reason": "outcome_unknown", **ENDED},
}


def statements(script: str) -> Iterator[str]:
    """The statements of a script, one by one; a trigger is one of them."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


class Watched(sqlite3.Connection):
    """After each statement of a script, the files are copied as a kill would leave them."""

    path: ClassVar[Path]
    kills: ClassVar[list[Path]]

    def executescript(self, sql_script: str, /) -> sqlite3.Cursor:
        self.execute("PRAGMA cache_size = 5")  # pages: what is not committed goes to the write-ahead log early
        for statement in statements(sql_script):
            self.execute(statement)
            self.kill()
        return self.cursor()

    def kill(self) -> None:
        folder = self.path.parent / f"killed-{len(self.kills)}"
        folder.mkdir()
        for path in self.path.parent.glob(f"{NAME}*"):
            shutil.copy(path, folder / path.name)
        self.kills.append(folder / NAME)


def create(path: Path, schema: int) -> None:
    """Create a database as a version with this schema left it."""
    if not schema:
        return
    create_schema_1(path, JOBS)
    with closing(sqlite3.connect(path)) as connection:
        connection.create_function("member_key", 2, member_key, deterministic=True)
        for number in range(2, schema + 1):
            connection.executescript(SCRIPTS[number])
        connection.execute(f"PRAGMA user_version = {schema}")


async def migrated(path: Path) -> tuple[Any, ...]:
    """Start with a database; returns its schema, and its jobs with the kinds of their entries."""
    async with opening.opened(path) as store:
        schema = {row["name"]: row["sql"] for row in await store.run("SELECT name, sql FROM sqlite_schema")}
        [[version]] = await store.run("PRAGMA user_version")
        jobs = await store.run(
            "SELECT jobs.id, state, jobs.user_id, GROUP_CONCAT(kind) FROM jobs JOIN entries ON job_id = jobs.id"
            " GROUP BY jobs.id ORDER BY jobs.id"
        )
    found = verification.examined(path)
    assert found.problem is None
    return version, schema, [tuple(row) for row in jobs]


@pytest.mark.parametrize("schema", range(len(SCRIPTS)))
async def test_a_kill_after_any_statement_leaves_a_database_that_the_next_start_migrates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, schema: int
) -> None:
    path = tmp_path / NAME
    create(path, schema)
    Watched.path, Watched.kills = path, []
    with monkeypatch.context() as watched:
        watched.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Watched))
        whole = await migrated(path)
    assert whole[0] == max(SCRIPTS)
    assert [job[0] for job in whole[2]] == (sorted(JOBS) if schema else [])
    upto = len(list(statements(SCRIPTS[schema + 1]))) + 3  # with BEGIN, the number of the schema, and COMMIT
    assert len(Watched.kills) >= upto
    for killed in Watched.kills[:upto]:  # what comes after is the migration from the next schema
        assert await migrated(killed) == whole, killed.parent.name
