"""`verify`: whether a backup is whole and its ledger consistent."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from bot.cli import exit_codes, progress
from bot.text import backups as texts

if TYPE_CHECKING:
    import argparse


def main(arguments: argparse.Namespace) -> int:
    """Returns the exit code; raises `DatabaseUnusable`."""
    from bot.storage import offline  # noqa: PLC0415 - for this command only

    if not arguments.file.is_file():
        print(texts.not_found(arguments.file), file=sys.stderr)
        return exit_codes.FAILED
    try:
        found = offline.examined(arguments.file, watch=progress.watched)
    except OSError as error:
        print(texts.cannot_be_used(arguments.file, error.strerror or type(error).__name__), file=sys.stderr)
        return exit_codes.FAILED
    for line in texts.examination(found):
        print(line)
    return exit_codes.OK if found.problem is None else exit_codes.FAILED
