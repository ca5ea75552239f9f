"""Standard input, output, and error as the commands expect them: open, and able to show every character."""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_LAST = 2  # the descriptor of standard error


class OutputFailed(Exception):
    """What is printed to standard output cannot be written."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


def prepare() -> None:
    """Call this before anything opens a file: a closed stream gives its descriptor to the next file, and what is
    printed then goes there. Cron jobs and daemons may have such streams.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _LAST:  # the lowest free one
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    # Python has no stream for what was closed at its start.
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - until the process ends
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    # What an encoding other than UTF-8 lacks is shown as an escape sequence.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def checked() -> Iterator[None]:
    """Write what the block prints; raises `OutputFailed`, and `BrokenPipeError` if the reader has ended."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC or error.filename is not None:
            raise
        # Without a buffer, `print` itself fails. The commands handle the errors of their own files.
        raise OutputFailed(error.strerror or type(error).__name__) from error
    finally:
        _flush()


def _flush() -> None:
    try:
        sys.stdout.flush()
    except OSError as error:
        # Python flushes once more at its end.
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise
        raise OutputFailed(error.strerror or type(error).__name__) from error
