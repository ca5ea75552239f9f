"""Writes several files, all of them or none."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_SIGNALS = {signal.SIGINT, signal.SIGTERM}


def write_together(files: Mapping[Path, bytes]) -> None:
    """Write each file with these bytes, for this user only, in the given order. A link stays one to what is written,
    and folders that are missing are made. If anything fails, everything is as it was before. Raises `OSError`.
    """
    files = {Path(os.path.realpath(path)): content for path, content in files.items()}
    with _uninterrupted(), ExitStack() as cleanup, ExitStack() as undo:
        for path in files:
            _make_folders(path.parent, undo)
        for path, content in files.items():
            undo.callback(_part(path).unlink, missing_ok=True)
            _write(_part(path), content)
            if path.exists():
                for stack in (undo, cleanup):
                    stack.callback(_old(path).unlink, missing_ok=True)
                _write(_old(path), path.read_bytes())
        for path in files:
            undo.callback(_restore, path, existed=path.exists())
            _part(path).replace(path)
        undo.pop_all()


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C waits until everything is written, which takes an instant."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _make_folders(folder: Path, undo: ExitStack) -> None:
    if folder.exists():
        return
    _make_folders(folder.parent, undo)
    undo.callback(_remove_folder, folder)
    folder.mkdir(mode=0o700)


def _remove_folder(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _write(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)  # what is left of a run that was killed
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(file, content)
        os.fsync(file)
    finally:
        os.close(file)


def _restore(path: Path, *, existed: bool) -> None:
    if existed:
        _old(path).replace(path)
    else:
        path.unlink(missing_ok=True)


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def _old(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")
