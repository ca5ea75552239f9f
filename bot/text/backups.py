"""What the command line says about backups."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from bot.domain.backups import Step
from bot.domain.examination import Check
from bot.text.formatting import megabytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime
    from pathlib import Path

    from bot.domain.examination import Examination, Loss

NOT_RESTORED = "Nothing was changed."
BROKEN_OFF = "\nNothing was changed."

# What a terminal shows meanwhile, and how tqdm draws it: with a known size, or without one.
STEPS: Mapping[Step, str] = MappingProxyType(
    {Step.COPY: "Copying", Step.CHECK: "Checking", Step.REPLACE: "Replacing the database"}
)
BAR = "{desc} {percentage:3.0f}% |{bar}| {n_fmt}B of {total_fmt}B, {remaining} left"
ELAPSED = "{desc} … {elapsed}"

# What is checked, and what is said if all is well.
_CHECKS: Mapping[Check, tuple[str, str]] = MappingProxyType(
    {
        Check.FILE: ("File", "it can be read"),
        Check.SCHEMA: ("Schema", "this version knows it"),
        Check.PAGES: ("Pages", "none is damaged"),
        Check.REFERENCES: ("References", "every row refers to one that exists"),
        Check.ENDS: ("Endings", "every delivered request is charged once, every other ended one is released"),
        Check.CREDITS: ("Credits", "those of every request add up"),
        Check.TOTALS: ("Credits by day", "the sums match the ledger"),
        Check.MONEY: ("Dollars by day", "the sums match the ledger"),
    }
)


def examination(found: Examination) -> Iterator[str]:
    """A line for every check, and one about what is in the copy."""
    for check, problem in found.findings:
        title, good = _CHECKS[check]
        yield f"ok     {title}: {good}." if problem is None else f"error  {title}: {problem}."
    if found.problem is None:
        yield f"{_requests(found.jobs)}, schema {found.schema}, {_last_change(found.last_change)}."


def _requests(count: int) -> str:
    return "1 request" if count == 1 else f"{count:,} requests"


def _last_change(at: datetime | None) -> str:
    return "no change yet" if at is None else f"last change on {at:%Y-%m-%d at %H:%M:%S} UTC"


def made(path: Path, size: int) -> str:
    return f"Backed up to {path} ({megabytes(size)})."


def failed(problem: str) -> str:
    return f"The database was not backed up: {problem}."


def pending(count: int) -> str:
    records = "1 record" if count == 1 else f"{count} records"
    return f"The journal has {records} that this backup lacks. Start the bot once before you rely on it."


def exists(path: Path) -> str:
    return f"{path} exists already; name a new file."


def database_unusable(path: Path, problem: str) -> str:
    return f"The database {path} {problem}."


def no_folder(path: Path) -> str:
    return f"There is no folder {path}."


def not_copied(made: Path, target: Path, problem: str) -> str:
    return f"Backed up to {made}, but not copied to {target}: {problem}."


def not_found(path: Path) -> str:
    return f"There is no file {path}."


def cannot_be_used(path: Path, problem: str) -> str:
    return f"{path} cannot be used: {problem}."


def not_restored(problem: str) -> str:
    return f"Nothing was restored: {problem}."


def before_restoring(loss: Loss | None) -> Iterator[str]:
    """What a restoration loses."""
    if loss is None:
        yield "There is no database that can be read, so this backup is all there is."
    else:
        yield (
            f"The database has {_requests(loss.jobs)} that this backup lacks, and {_charges(loss.charges)}. They will"
            " be forgotten: members get these credits back, and the buttons under these results stop working."
        )
        yield "Limits, blocks, extra credits, presets, and settings become those of the backup."
    yield (
        "Requests that the backup calls open are released at the next start. Personal data that was deleted since then"
        " is deleted again."
    )


def _charges(count: int) -> str:
    return "1 charge" if count == 1 else f"{count:,} charges"


def confirm(database: Path) -> str:
    return f"Restore it to {database}? Type yes: "


def restored(database: Path, kept: Path | None) -> Iterator[str]:
    yield f"Restored. The database is {database}. The next start alerts you that an older copy replaced the database."
    if kept is not None:
        yield f"The database that it replaced is in {kept} for 14 days; to go back, restore it."
