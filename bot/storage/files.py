"""Files that are whole and on the disk under their last name, or not there at all."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PART = ".part"  # of the name of a file that is being written
MODE = 0o600


def create(path: Path) -> None:
    """Create an empty file that only its owner may read, in place of any other; raises `OSError`."""
    path.unlink(missing_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, MODE))
    give_to_owner(path)


def create_folder(path: Path) -> None:
    """Create a folder that only its owner may enter, if there is none; raises `OSError`."""
    if not path.is_dir():
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        give_to_owner(path)


def give_to_owner(path: Path) -> None:
    """Root may run a command in the folder of a service, which has to be able to read what is new there: it belongs to
    whom its folder belongs, where root may say so.
    """
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        with suppress(OSError):  # a network drive, or a container without that capability
            folder = path.parent.stat()
            os.chown(path, folder.st_uid, folder.st_gid)


def copy(source: Path, target: Path) -> None:
    """Copy a file to a new one that only its owner may read; raises `OSError`."""
    create(target)
    shutil.copyfile(source, target)


def size(path: Path) -> int:
    """Its bytes; 0 if there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def publish(part: Path, target: Path) -> None:
    """Give a finished file its last name, in place of any other, once it is on the disk; raises `OSError`."""
    sync(part)
    part.replace(target)
    sync_folder(target.parent)


def sync(path: Path) -> None:
    """Wait until a file is on the disk; raises `OSError`."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable; Windows cannot flush one."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
