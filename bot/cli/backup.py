"""`backup`: a copy of the database, made by the running bot, or here if none runs."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from bot.cli import exit_codes
from bot.domain.errors import BackupFailed
from bot.text import backups as texts

if TYPE_CHECKING:
    import argparse

    from bot.config import Stored


def main(arguments: argparse.Namespace) -> int:
    """Returns the exit code; raises `InvalidConfiguration`, `DatabaseUnusable`."""
    from bot import config  # noqa: PLC0415 - slow to import

    target: Path | None = arguments.file
    if target is not None and target.exists():
        print(texts.exists(target), file=sys.stderr)
        return exit_codes.FAILED
    settings = config.load_stored()
    try:
        made = _by_running_bot(settings) or _here(settings)
        path = made if target is None else _copied(made, target)
    except BackupFailed as error:
        print(texts.failed(error.problem), file=sys.stderr)
        return exit_codes.FAILED
    except OSError as error:
        print(texts.failed(error.strerror or type(error).__name__), file=sys.stderr)
        return exit_codes.FAILED
    print(texts.made(path, path.stat().st_size))
    return exit_codes.OK


def _by_running_bot(settings: Stored) -> Path | None:
    from bot.ops import control  # noqa: PLC0415 - for this command only

    answer = control.ask(settings.storage.folder / control.NAME, "backup")
    if answer is None:
        return None
    if "problem" in answer:
        raise BackupFailed(answer["problem"])
    return Path(answer["path"])


def _here(settings: Stored) -> Path:
    from bot.storage import backups, database, offline  # noqa: PLC0415 - for this command only
    from bot.storage.journal import Journal  # noqa: PLC0415

    folder = settings.storage.folder
    target = settings.backup.folder or folder / backups.FOLDER
    made = offline.back_up(folder / database.FILE, folder=target, now=datetime.now(UTC))
    journal = folder / "journal"
    if journal.exists() and (records := Journal(journal, size=0).records()):
        print(texts.pending(len(records)), file=sys.stderr)
    return made


def _copied(made: Path, target: Path) -> Path:
    """Copy a backup to a file of its own, which is whole or not there."""
    from bot.storage import files  # noqa: PLC0415 - for this command only

    part = target.with_name(target.name + files.PART)
    try:
        files.copy(made, part)
        files.publish(part, target)
    finally:
        part.unlink(missing_ok=True)
    return target
