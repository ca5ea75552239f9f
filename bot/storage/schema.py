"""The schema of the database: which version this program writes, and the way there from every older one."""

from __future__ import annotations

import sqlite3
from importlib import resources
from typing import TYPE_CHECKING

from bot.domain.errors import DatabaseUnusable

if TYPE_CHECKING:
    from importlib.abc import Traversable

    import aiosqlite


async def migrate(connection: aiosqlite.Connection) -> None:
    """Apply the numbered files that this database has not seen, each in one transaction with its number."""
    scripts = _scripts()
    [[version]] = await connection.execute_fetchall("PRAGMA user_version")
    if version > max(scripts):
        raise DatabaseUnusable(f"was written by a newer version of this program (schema {version})")
    for number in sorted(number for number in scripts if number > version):
        script = scripts[number].read_text("utf-8")
        try:
            await connection.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {number};\nCOMMIT;")
        except sqlite3.Error:
            await connection.rollback()  # `executescript` would commit the half of it before a second try
            raise


def newest_schema() -> int:
    """The version of the schema that this program writes."""
    return max(_scripts())


def _scripts() -> dict[int, Traversable]:
    files = resources.files("bot.storage").joinpath("migrations", "sqlite").iterdir()
    return {int(file.name[:4]): file for file in files if file.name.endswith(".sql")}
