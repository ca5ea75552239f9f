"""What can be seen of a database without opening it as the bot does: nothing is locked, changed, or created."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from bot.domain.errors import DatabaseUnusable
from bot.storage.database import FILE
from bot.storage.marker import Marker
from bot.storage.schema import newest_schema

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


def is_in_use(folder: Path, *, locks: Path = _LOCKS) -> bool:
    """Whether a process of this machine has locked the database; False where that cannot be seen."""
    with suppress(OSError, ValueError):
        return str((folder / FILE).stat().st_ino) in _INODE.findall(locks.read_text("ascii"))
    return False
