"""How long things are kept, and what the deletion of a person's data is about."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class RetentionRules:
    """How long what is stored stays: jobs that have ended, the rules of a server that the bot has left, and source
    images since they were last used. Beyond `most_jobs`, the oldest that have ended go earlier.
    """

    jobs: timedelta = timedelta(days=365)
    most_jobs: int = 1_000_000
    left_servers: timedelta = timedelta(days=30)
    sources: timedelta = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class PersonFiles:
    """The files of one person: source images that no other person's job uses, by their hashes, and job ids, after
    which finished images are named.
    """

    sources: frozenset[str]
    jobs: frozenset[str]
