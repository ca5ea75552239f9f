"""The file next to the database by which a missing database, or an older copy in its place, is noticed."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bot.domain.errors import DatabaseUnusable
from bot.storage import files

if TYPE_CHECKING:
    from pathlib import Path

    import aiosqlite

log = logging.getLogger(__name__)

_POSITION = """
    SELECT
        (SELECT COALESCE(MAX(id), 0) FROM entries),
        COALESCE((SELECT value FROM facts WHERE name = 'start'), ''),
        COALESCE((SELECT value FROM facts WHERE name = 'marker'), '')
"""


@dataclass(frozen=True, slots=True)
class Position:
    """How far a database is: the id of its last entry, the random id of its last start, and the text of the marker
    that this start found.
    """

    last: int
    start: str
    found: str


async def position_of(connection: aiosqlite.Connection) -> Position:
    [[last, start, found]] = await connection.execute_fetchall(_POSITION)
    return Position(last, start, found)


class Marker:
    """Says how far the database was when the marker was last written: at a start, hourly, and at a stop.

    A start writes the database first and the marker afterwards. A kill between the two leaves a marker that the
    database has seen, which is no reason for an alarm, however often it happens.
    """

    def __init__(self, database: Path) -> None:
        self._database = database
        self._path = database.with_name(database.name + ".marker")

    def check_not_missing(self) -> None:
        """Raises `DatabaseUnusable` if there was a database and it is gone."""
        if self._path.exists() and not self._database.exists():
            raise DatabaseUnusable(
                f"is missing although it existed before; restore it, or delete {self._path.name} to start with an empty"
                " one"
            )

    def read(self) -> str:
        """The text of the marker; empty if there is none, or if it can't be read."""
        try:
            return self._path.read_text("utf-8")
        except (OSError, ValueError):
            return ""

    def names_a_start(self) -> bool:
        """Whether it can tell copies apart that have the same entries."""
        return _parsed(self.read())[1] != ""

    def write(self, position: Position) -> None:
        """Replace the marker by a whole one; if that fails, the last one stays, and only notices less."""
        part = self._path.with_name(self._path.name + ".part")
        try:
            with part.open("wb", 0) as file:
                file.write(f"{position.last}\n{position.start}\n".encode())
                os.fsync(file.fileno())
            files.give_to_owner(part)
            part.replace(self._path)
        except OSError as error:
            log.warning("%s could not be written: %s", self._path.name, type(error).__name__)


def is_older(position: Position, marker: str) -> bool:
    """Whether a database is a copy from before the marker with this text was written."""
    if marker == position.found:
        return False
    last, start = _parsed(marker)
    return position.last < last or start not in ("", position.start)


def _parsed(marker: str) -> tuple[int, str]:
    """The id of the last entry, and of the start; markers of earlier versions have only the first."""
    last, _, start = marker.partition("\n")
    try:
        return int(last), start.strip()
    except ValueError:
        return 0, ""
