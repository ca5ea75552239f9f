"""What can be seen of a database without opening it as the bot does: nothing is locked, changed, or created."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from bot.domain.errors import DatabaseUnusable
from bot.storage import files, integrity
from bot.storage.database import FILE
from bot.storage.marker import Marker
from bot.storage.schema import newest_schema

if TYPE_CHECKING:
    from collections.abc import Iterator

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
        with closing(integrity.unchanging(path)) as connection:
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
            for [name] in connection.execute(integrity.TABLES).fetchall():
                connection.execute(integrity.FIRST_ROW.format(name)).fetchall()
            return integrity.damage(connection) if files.size(path) <= integrity.CHECKED_AT_ONCE else None
    except sqlite3.Error as error:
        return str(error)


def files_of(folder: Path) -> Iterator[Path]:
    """Those that a bot must read and write, where they exist."""
    return (path for name in (FILE, f"{FILE}-wal", "journal") if (path := folder / name).exists())


def is_in_use(folder: Path, *, locks: Path = _LOCKS) -> bool:
    """Whether a process of this machine has locked the database; False where that cannot be seen."""
    with suppress(OSError, ValueError):
        return str((folder / FILE).stat().st_ino) in _INODE.findall(locks.read_text("ascii"))
    return False
