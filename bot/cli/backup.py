"""`backup`: a copy of the database, made by the running bot, or here if none runs."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bot.cli import exit_codes, progress
from bot.domain.backups import Step
from bot.domain.errors import BackupFailed, DatabaseUnusable
from bot.text import backups as texts

if TYPE_CHECKING:
    import argparse

    from bot.config import Stored


def main(arguments: argparse.Namespace) -> int:
    """Returns the exit code; raises `InvalidConfiguration`."""
    from bot import config  # noqa: PLC0415 - slow to import

    target: Path | None = arguments.file
    if target is not None and (problem := _problem_with(target)) is not None:
        return _refuse(problem)
    settings = config.load_stored()
    try:
        path = _made(settings)
    except BackupFailed as error:
        return _refuse(texts.failed(error.problem))
    except DatabaseUnusable as error:
        return _refuse(texts.database_unusable(_database(settings), error.problem), code=exit_codes.STORAGE)
    if target is not None:
        try:
            path = _copied(path, target)
        except OSError as error:
            return _refuse(texts.not_copied(path, target, error.strerror or type(error).__name__))
    print(texts.made(path, path.stat().st_size))
    return exit_codes.OK


def _problem_with(target: Path) -> str | None:
    """Why no backup can be copied to this file."""
    if target.exists():
        return texts.exists(target)
    return None if target.parent.is_dir() else texts.no_folder(target.parent)


def _refuse(sentence: str, *, code: int = exit_codes.FAILED) -> int:
    print(sentence, file=sys.stderr)
    return code


def _made(settings: Stored) -> Path:
    """Raises `DatabaseUnusable`, `BackupFailed`."""
    try:
        return _by_running_bot(settings) or _here(settings)
    except sqlite3.Error as error:  # the database is damaged
        raise BackupFailed(str(error)) from error
    except OSError as error:
        raise BackupFailed(error.strerror or type(error).__name__) from error


def _by_running_bot(settings: Stored) -> Path | None:
    from bot.ops import control  # noqa: PLC0415 - for this command only

    folder = settings.storage.folder
    with progress.watched(Step.COPY, done=partial(_written, _target(settings)), size=_expected(folder)):
        answer = control.ask(folder / control.NAME, "backup")
    if answer is None:
        return None
    if "problem" in answer:
        raise BackupFailed(answer["problem"])
    return Path(answer["path"])


def _here(settings: Stored) -> Path:
    from bot.storage import offline  # noqa: PLC0415 - for this command only
    from bot.storage.journal import Journal  # noqa: PLC0415

    folder, database = settings.storage.folder, _database(settings)
    if not database.exists():
        raise DatabaseUnusable("does not exist")
    now = datetime.now(UTC)
    made = offline.back_up(database, folder=_target(settings), now=now, watch=progress.watched)
    journal = folder / "journal"
    if journal.exists() and (records := Journal(journal, size=0).records()):
        print(texts.pending(len(records)), file=sys.stderr)
    return made


def _database(settings: Stored) -> Path:
    """An absolute path, which says where the command has looked."""
    from bot.storage.database import FILE  # noqa: PLC0415 - for this command only

    return settings.storage.folder.absolute() / FILE


def _target(settings: Stored) -> Path:
    from bot.storage import backups  # noqa: PLC0415 - for this command only

    return settings.backup.folder or settings.storage.folder / backups.FOLDER


def _written(folder: Path) -> int:
    """The bytes of the backup that the running bot is writing there."""
    from bot.storage import files  # noqa: PLC0415 - for this command only

    return max(map(files.size, folder.glob(f"*{files.PART}")), default=0)


def _expected(folder: Path) -> int:
    """About the bytes of a backup of the database there; 0 if that is not known."""
    from bot.storage import database, integrity  # noqa: PLC0415 - for this command only

    with suppress(OSError, sqlite3.Error), closing(integrity.unchanging(folder / database.FILE)) as connection:
        return integrity.size_of_copy(connection)
    return 0


def _copied(made: Path, target: Path) -> Path:
    """Copy a backup to a file of its own, which is whole or not there."""
    from bot.storage import files  # noqa: PLC0415 - for this command only

    part = target.with_name(target.name + files.PART)
    try:
        with progress.watched(Step.COPY, done=partial(files.size, part), size=files.size(made)):
            files.copy(made, part)
            files.publish(part, target)
    finally:
        part.unlink(missing_ok=True)
    return target
