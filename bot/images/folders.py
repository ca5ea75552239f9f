"""Keeps a folder of files within its limits: the old, the half written, and the least recently used beyond the cap."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator
    from pathlib import Path

PARTIAL = ".part"  # the suffix of a file that is being written
_ABANDONED_SECONDS = 3600.0  # no write takes that long: its process is gone


def sweep(
    folder: Path, *, now: float, life_seconds: float, cap: int, needed: frozenset[str] = frozenset()
) -> tuple[int, int]:
    """Delete what is older than `life_seconds`, what was abandoned while it was written, and the least recently used
    beyond `cap` bytes. A file whose name up to the first dot is in `needed` stays. Returns how many were deleted and
    the bytes that are left.
    """
    left = deleted = 0
    for status, path in sorted(files_in(folder), key=lambda found: found[0].st_mtime, reverse=True):
        if path.name.partition(".")[0] not in needed:
            partial = path.suffix == PARTIAL
            too_old = now - status.st_mtime > (_ABANDONED_SECONDS if partial else life_seconds)
            if too_old or (not partial and left + status.st_size > cap):
                path.unlink(missing_ok=True)
                deleted += 1
                continue
        left += status.st_size
    return deleted, left


def files_in(folder: Path) -> Iterator[tuple[os.stat_result, Path]]:
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # renamed or deleted meanwhile
            if path.is_file():
                yield path.stat(), path
