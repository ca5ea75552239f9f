"""The file next to the database by which a restored backup deletes again whom it still knows."""

from __future__ import annotations

import os
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from bot.storage.files import sync_folder
from bot.storage.pseudonyms import member_key

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

LIFE = timedelta(days=400)  # an older backup may know again whom it knew
_HEADER = re.compile(r"salt ([0-9a-f]{64})")
_LINE = re.compile(r"(\d+) ([0-9a-f]{16}) (\S+)")


@dataclass(frozen=True, slots=True)
class Line:
    """One deletion: its number, the pseudonym of the person, and when it was."""

    number: int
    key: str
    at: datetime

    def __str__(self) -> str:
        return f"{self.number} {self.key} {self.at.isoformat()}"


class Forgotten:
    """One line per deletion, without an id. The file has a salt of its own: the database's may be newer than a deletion
    if a backup of an earlier version was restored.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def last(self) -> int:
        """The number of the last deletion; raises `OSError`."""
        return max((line.number for line in self._read()[1]), default=0)

    def whose(self, user_ids: Iterable[int], *, after: int) -> list[int]:
        """Those of `user_ids` whose data was deleted after the deletion with the number `after`; raises `OSError`."""
        salt, lines = self._read()
        keys = {line.key for line in lines if line.number > after}
        return [user_id for user_id in user_ids if keys and _key(salt, user_id) in keys]

    def add(self, number: int, user_id: int, *, at: datetime) -> None:
        """Write down a deletion, and forget those that are too old; on disk when the call returns. Raises `OSError`."""
        salt, lines = self._read()
        salt = salt or secrets.token_hex(32)
        kept = [line for line in lines if line.at > at - LIFE]
        self._write([f"salt {salt}", *map(str, kept), str(Line(number, _key(salt, user_id), at))])

    def _read(self) -> tuple[str, list[Line]]:
        try:
            header, *lines = self._path.read_text("ascii").splitlines() or [""]
        except FileNotFoundError:
            return "", []
        salt = _HEADER.fullmatch(header)
        found = filter(None, map(_LINE.fullmatch, lines))
        return salt[1] if salt else "", [
            Line(int(one[1]), one[2], datetime.fromisoformat(one[3])) for one in found if salt
        ]

    def _write(self, lines: Iterable[str]) -> None:
        part = self._path.with_name(self._path.name + ".part")
        with part.open("wb", 0) as file:
            file.write("".join(f"{line}\n" for line in lines).encode("ascii"))
            os.fsync(file.fileno())
        part.replace(self._path)
        sync_folder(self._path.parent)


def _key(salt: str, user_id: int) -> str:
    return f"{member_key(salt, user_id) % 2**64:016x}"
