"""A database that is too large to be checked before the bot goes online, and damage that only a check can find."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from bot.storage.integrity import CHECKED_AT_ONCE

if TYPE_CHECKING:
    from pathlib import Path

_SMALL = "INSERT INTO audit (at, actor, action, details) VALUES (1, 5, 'test', '{}')"  # what a glance comes across
_LARGE = "INSERT INTO audit (at, actor, action, details) VALUES (1, 5, 'test', printf('{%.*c}', ?, 'x'))"
_PAGE = 4096


def enlarge(path: Path) -> None:
    """Make the closed database at `path` large: one record fills most of its pages, one after the other."""
    with closing(sqlite3.connect(path)) as raw:
        raw.execute(_SMALL)
        raw.execute(_LARGE, (CHECKED_AT_ONCE,))
        raw.commit()


def damage(path: Path) -> None:
    """Cut the chain of pages of that record in the middle of the file."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2 // _PAGE * _PAGE)
        file.write(bytes(4))  # the number of the next page
