"""What must be true of a measured bot: no image is lost, paid twice, charged twice, or answered late."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from benchmarks.workload import Batch

ANSWER_SECONDS = 3.0  # Discord's deadline
_FEW_JOBS = 200
_FEW_MB, _MANY_MB = 150.0, 200.0

_COUNTS = {
    "jobs delivered": "SELECT COUNT(*) FROM jobs WHERE state = 'delivered'",
    "total jobs": "SELECT COUNT(*) FROM jobs",
    "holds": "SELECT COUNT(*) FROM entries WHERE kind = 'hold'",
    "charges": "SELECT COUNT(*) FROM entries WHERE kind = 'charge'",
    "jobs charged": "SELECT COUNT(DISTINCT job_id) FROM entries WHERE kind = 'charge'",
    "credits spent": "SELECT COALESCE(SUM(spent), 0) FROM entries",
    "entries": "SELECT COUNT(*) / 2 FROM entries",
}


def check_delivery(batch: Batch) -> Iterator[str]:
    """Yield a problem if a job had no answer, or no whole image."""
    jobs = len(batch.jobs)
    if len(batch.overheads) != jobs:
        yield f"{jobs - len(batch.overheads)} of {jobs} images were not delivered, or were incomplete"
    if len(batch.answers) != jobs:
        yield f"{jobs - len(batch.answers)} of {jobs} commands were not answered"


def check_limits(batch: Batch) -> Iterator[str]:
    """Yield a problem if an answer was late, or if memory exceeded its limit. CPU never is a problem: it is noisy."""
    slowest = max(batch.answers, default=0.0)
    if slowest > ANSWER_SECONDS:
        yield f"with {batch.at_once} jobs at once, an answer took {slowest:.1f} s"
    limit = _FEW_MB if batch.at_once <= _FEW_JOBS else _MANY_MB
    if batch.peak > limit:
        yield f"with {batch.at_once} jobs at once, memory reached {batch.peak:.0f} MB, more than {limit:.0f}"


def counts(database: Path) -> Counter[str]:
    """What a closed database says about its jobs; nothing, if there is none yet."""
    if not database.exists():
        return Counter()
    with closing(sqlite3.connect(database)) as connection:
        return Counter({name: connection.execute(sql).fetchone()[0] for name, sql in _COUNTS.items()})


def check_books(found: Mapping[str, int], *, paid: int, jobs: int) -> Iterator[str]:
    """Yield a problem for every count of the ledger that is not that of the delivered jobs."""
    for name, count in {**dict.fromkeys(_COUNTS, 0), **found, "calls paid": paid}.items():
        if count != jobs:
            yield f"{name}: {count} instead of {jobs}"


def check_sources(folder: Path, jobs: int) -> Iterator[str]:
    """Yield a problem unless the source image of every job was stored."""
    stored = sum(file.stat().st_size > 0 for file in folder.iterdir())
    if stored != jobs:
        yield f"source images stored: {stored} instead of {jobs}"
