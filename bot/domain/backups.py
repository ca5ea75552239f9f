"""Backups: which of them are kept, and how often one is made."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime
    from pathlib import Path

_SHARE = 50  # a backup is followed by a pause of at least this many times the time that it took
_BYTES_PER_SECOND = 512 * 1024  # written by backups on average, at most: a disk wears out
_ROOM = 64 * 1024 * 1024  # bytes of the disk that a backup leaves to everything else


@dataclass(frozen=True, slots=True)
class BackupRules:
    """How often a backup is made (0: never by itself), how many are kept of the newest, of one an hour, and of one a
    day, and how many bytes all of them may take.
    """

    interval: timedelta = timedelta(minutes=5)
    recent: int = 12
    hourly: int = 24
    daily: int = 14
    most_bytes: int = 4096 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Backup:
    """A copy of the database that was verified after it was written, and the time whose state it has."""

    path: Path
    size: int
    at: datetime


class Step(StrEnum):
    """What takes seconds in a large database."""

    COPY = "copy"
    CHECK = "check"
    REPLACE = "replace"


class Watch(Protocol):
    """Shows how far a step is, until the end of the block: `done()` of about `size` bytes, as far as that is known."""

    def __call__(
        self, step: Step, *, done: Callable[[], int] | None = None, size: int = 0
    ) -> AbstractContextManager[None]: ...


def unwatched(step: Step, *, done: Callable[[], int] | None = None, size: int = 0) -> AbstractContextManager[None]:  # noqa: ARG001
    """Shows nothing."""
    return nullcontext()


def room_needed(size: int) -> int:
    """The free bytes without which no copy of a database of `size` bytes is made."""
    return size + _ROOM


def pause_after(rules: BackupRules, *, seconds: float, size: int) -> timedelta:
    """The time from one backup to the next, if the last one took so many seconds and bytes."""
    return max(rules.interval, timedelta(seconds=max(_SHARE * seconds, size / _BYTES_PER_SECOND)))


def kept(backups: Sequence[Backup], rules: BackupRules) -> set[Backup]:
    """Those that stay. If they are too large together, there are fewer of the kind that has the most; the newest one
    always stays.
    """
    newest_first = sorted(backups, key=lambda backup: backup.at, reverse=True)
    counts = [rules.recent, rules.hourly, rules.daily]
    while True:
        chosen = _chosen(newest_first, *counts)
        if max(counts) == 0 or sum(backup.size for backup in chosen) <= rules.most_bytes:
            return chosen
        counts[counts.index(max(counts))] -= 1


def _chosen(newest_first: Sequence[Backup], recent: int, hourly: int, daily: int) -> set[Backup]:
    hours, days = dict[str, Backup](), dict[str, Backup]()
    for backup in newest_first:
        hours.setdefault(f"{backup.at:%Y%m%d%H}", backup)
        days.setdefault(f"{backup.at:%Y%m%d}", backup)
    return {*newest_first[: max(1, recent)], *[*hours.values()][:hourly], *[*days.values()][:daily]}
