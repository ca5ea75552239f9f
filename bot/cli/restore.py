"""`restore`: a backup in the place of the database, after a check and a question."""

from __future__ import annotations

import signal
import sqlite3
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from bot.cli import exit_codes, progress
from bot.cli.standard_streams import OutputFailed
from bot.domain.backups import Step
from bot.domain.errors import BackupFailed
from bot.text import backups as texts

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator
    from pathlib import Path


def main(arguments: argparse.Namespace) -> int:
    """Returns the exit code; raises `InvalidConfiguration`, `DatabaseUnusable`."""
    from bot import config  # noqa: PLC0415 - slow to import
    from bot.storage.database import FILE  # noqa: PLC0415 - for this command only

    source: Path = arguments.file
    if not source.is_file():
        print(texts.not_found(source), file=sys.stderr)
        return exit_codes.FAILED
    database = config.load_stored().storage.folder / FILE
    try:
        return _restore(source, database, is_agreed=arguments.yes)
    except BackupFailed as error:
        print(texts.not_restored(error.problem), file=sys.stderr)
    except sqlite3.Error as error:
        print(texts.not_restored(str(error)), file=sys.stderr)
    except OSError as error:
        print(texts.not_restored(error.strerror or type(error).__name__), file=sys.stderr)
    except KeyboardInterrupt:
        print(texts.BROKEN_OFF, file=sys.stderr)
        return exit_codes.INTERRUPTED
    return exit_codes.FAILED


def _restore(source: Path, database: Path, *, is_agreed: bool) -> int:
    from bot.storage import restoration  # noqa: PLC0415 - for this command only

    with restoration.prepared(source, database, watch=progress.watched) as prepared:
        _print(texts.examination(prepared.examination))
        if prepared.examination.problem is not None:
            print(texts.NOT_RESTORED, file=sys.stderr)
            return exit_codes.FAILED
        _print(texts.before_restoring(prepared.loss))
        if not (is_agreed or _agrees(database)):
            print(texts.NOT_RESTORED)
            return exit_codes.FAILED
        with _uninterrupted():
            with progress.watched(Step.REPLACE):
                kept = prepared.finish(now=datetime.now(UTC))
            _print(texts.restored(database.absolute(), kept))
    return exit_codes.OK


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """A Ctrl-C in this block does nothing: what it says of its end would be wrong."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        if signal.SIGINT in signal.sigpending():
            signal.sigwait({signal.SIGINT})
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _agrees(database: Path) -> bool:
    try:
        return input(texts.confirm(database.absolute())).strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _print(lines: Iterable[str]) -> None:
    """Raises `OutputFailed`, which is no failure of the restoration."""
    try:
        for line in lines:
            print(line)
    except OSError as error:
        raise OutputFailed(error.strerror or type(error).__name__) from error
