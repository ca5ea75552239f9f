"""What can be seen of a database without opening it as the bot does: nothing is locked, changed, or created."""

from __future__ import annotations

import os
import re
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from bot.domain.errors import DatabaseUnusable
from bot.storage import files, integrity
from bot.storage.database import FILE
from bot.storage.marker import Marker
from bot.storage.schema import newest_schema

_TABLES = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
_WRITTEN = (FILE, f"{FILE}-wal", "journal")
_BY_EFFECTIVE_IDS = os.access in os.supports_effective_ids
_LOCKS = Path("/proc/locks")
_INODE = re.compile(r"^\d+: \S+\s+\S+\s+WRITE \S+ [0-9a-f]+:[0-9a-f]+:(\d+) ", re.MULTILINE)


def schema_of(folder: Path) -> tuple[int, int] | None:
    """The version of the database's schema, and the newest that this program knows; None if there is no database yet.
    Raises `DatabaseUnusable` if there should be one, or if the file is none.
    """
    path = folder / FILE
    try:
        Marker(path).check_not_missing()
        if not path.exists():
            return None
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
            [[version]] = connection.execute("PRAGMA user_version")
    except (sqlite3.Error, OSError) as error:
        raise DatabaseUnusable(f"cannot be read: {error}") from error
    if version > newest_schema():
        raise DatabaseUnusable(f"was written by a newer version of this program (schema {version})")
    return version, newest_schema()


def damage_in(folder: Path) -> str | None:
    """What a start would find damaged in a database that no bot uses, as far as it takes no time. After a kill, the
    file alone may not be whole, and nothing is said.
    """
    path = folder / FILE
    if not path.exists() or files.size(path.with_name(f"{FILE}-wal")):
        return None
    try:
        with closing(integrity.unchanging(path)) as connection:
            for [name] in connection.execute(_TABLES).fetchall():
                connection.execute(f'SELECT * FROM "{name}" LIMIT 1').fetchall()
            return integrity.damage(connection) if files.size(path) <= integrity.CHECKED_AT_ONCE else None
    except sqlite3.Error as error:
        return str(error)


def denied_file(folder: Path) -> Path | None:
    """A file that the bot must read and write, and that this user may not. None is opened: closing it would drop the
    locks of a bot in this process.
    """
    for name in _WRITTEN:
        path = folder / name
        if path.exists() and not os.access(path, os.R_OK | os.W_OK, effective_ids=_BY_EFFECTIVE_IDS):
            return path
    return None


def is_in_use(folder: Path, *, locks: Path = _LOCKS) -> bool:
    """Whether a process of this machine has locked the database; False where that cannot be seen."""
    with suppress(OSError, ValueError):
        return str((folder / FILE).stat().st_ino) in _INODE.findall(locks.read_text("ascii"))
    return False
