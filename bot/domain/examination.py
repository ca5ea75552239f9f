"""What is checked in a copy of the database, what was found, and what its restoration would lose."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime


class Check(StrEnum):
    """What is checked in a copy."""

    FILE = "file"
    SCHEMA = "schema"
    PAGES = "pages"
    REFERENCES = "references"
    ENDS = "ends"
    CREDITS = "credits"
    TOTALS = "totals"
    MONEY = "money"


@dataclass(frozen=True, slots=True)
class Examination:
    """What was found in a copy: a clause for every check that was made, or None where all is well. `last_entry` is the
    id of the newest ledger entry, `last_change` its time.
    """

    findings: Sequence[tuple[Check, str | None]]
    schema: int = 0
    jobs: int = 0
    last_entry: int = 0
    last_change: datetime | None = None

    @property
    def problem(self) -> str | None:
        """The first problem."""
        return next((problem for _, problem in self.findings if problem is not None), None)


@dataclass(frozen=True, slots=True)
class Loss:
    """What the current database has and a backup does not: requests, and how many of them were charged."""

    jobs: int
    charges: int
