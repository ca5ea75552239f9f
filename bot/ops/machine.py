"""Checks that need no network: the folder and its disk, SQLite, Python, and what is installed."""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
import tempfile
from importlib import util
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from bot.domain.diagnosis import Disk, Finding, error, ok, warning
from bot.ops import mounts
from bot.text import doctor as text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MEBIBYTE = 1024 * 1024
TOO_LITTLE = 64 * MEBIBYTE  # the reserve, the journal, and the images of a busy minute
RESERVE = 256 * MEBIBYTE  # beyond what the source images may use
_LEAST_SQLITE = (3, 38, 0)  # STRICT tables, and JSON functions in every build
_LEAST_PYTHON = (3, 11)
_LOCK = Path(__file__).parents[2] / "requirements" / "run.lock"
_FORMATS = {"zlib": "PNG", "jpg": "JPEG", "webp": "WebP"}  # Pillow's names of what reads each


def disk_of(folder: Path, *, mountinfo: Path = mounts.MOUNTS) -> Disk:
    """The disk that a folder is on, or will be on."""
    existing = _existing_part(folder)
    try:
        kind = mounts.kind_at(PurePosixPath(os.path.realpath(existing)), mountinfo.read_text("utf-8", "replace"))
    except OSError:  # not on Linux
        kind = None
    return Disk(kind, shutil.disk_usage(existing).free)


def _existing_part(folder: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    absolute = folder.absolute()
    return next(path for path in (absolute, *absolute.parents) if path.exists())


def check_folder(folder: Path) -> Finding:
    """Whether files can be written there, by writing one; a folder that does not exist is not created."""
    existing = folder
    try:
        existing = _existing_part(folder)
        with tempfile.TemporaryFile(dir=existing):
            pass
        is_new = existing != folder.absolute()
    except OSError as problem:
        return error("folder", text.folder_unusable(existing, (problem.strerror or type(problem).__name__).lower()))
    return ok("folder", text.folder_new(folder) if is_new else text.folder_usable(folder))


def check_disk(disk: Disk) -> Finding:
    kind = disk.kind or ""
    if mounts.is_network(kind):
        return warning("disk", text.network_disk(kind))
    if mounts.is_in_memory(kind):
        return warning("disk", text.disk_in_memory(kind))
    if mounts.is_of_a_container(kind):
        return warning("disk", text.disk_of_a_container(kind))
    return ok("disk", text.local_disk(disk.kind))


def check_space(disk: Disk, *, still_wanted: int) -> Finding:
    """`still_wanted`: bytes that the stored source images may still grow by."""
    if disk.free < TOO_LITTLE:
        return error("space", text.little_space(disk.free, still_wanted + RESERVE))
    if disk.free < still_wanted + RESERVE:
        return warning("space", text.little_space(disk.free, still_wanted + RESERVE))
    return ok("space", text.space(disk.free))


def check_place(folder: Path, *, most_sources: int = 0) -> Iterator[Finding]:
    """Whether the disk of a folder is a good place and has room, also for `most_sources` bytes of source images."""
    try:
        disk = disk_of(folder)
    except OSError:  # `check_folder` says why
        return
    yield check_disk(disk)
    yield check_space(disk, still_wanted=max(0, most_sources - _size_of(folder / "sources")))


def check_sqlite(
    version: tuple[int, ...] = sqlite3.sqlite_version_info, *, threads: int = sqlite3.threadsafety
) -> Finding:
    written = ".".join(map(str, version))
    if version < _LEAST_SQLITE:
        return error("SQLite", text.sqlite_old(written, ".".join(map(str, _LEAST_SQLITE))))
    if threads == 0:
        return error("SQLite", text.sqlite_unsafe(written))
    return ok("SQLite", text.sqlite_fine(written, has_reset_bug=has_wal_reset_bug(version)))


def has_wal_reset_bug(version: tuple[int, ...]) -> bool:
    """Of several connections, one could overwrite what another has just written: up to 3.51.2, but for 3.50.7 and its
    like, which have the fix too.
    """
    return version < (3, 51, 3) and not ((3, 50, 7) <= version < (3, 51) or (3, 44, 6) <= version < (3, 45))


def check_python(version: tuple[int, ...] = sys.version_info[:3]) -> Finding:
    written = ".".join(map(str, version))
    if version < _LEAST_PYTHON:
        return error("Python", text.python_old(written, ".".join(map(str, _LEAST_PYTHON))))
    return ok("Python", text.python_fine(written))


def check_packages(lock: Path = _LOCK) -> Finding:
    from bot.ops import packages  # noqa: PLC0415 - slow to import, and `run` does without it

    try:
        wanted = packages.pinned(lock.read_text("utf-8"))
    except OSError:  # installed without the checkout
        return ok("packages", text.packages_unlocked())
    if differences := packages.differences(wanted, packages.installed(list(wanted))):
        return warning("packages", text.packages_differ(differences))
    return ok("packages", text.packages_locked(len(wanted)))


def check_charts() -> Finding:
    return ok("charts", text.charts(drawn=util.find_spec("matplotlib") is not None))


def judge_fonts(missing: Sequence[str]) -> Finding:
    """`missing`: the scripts of which no installed font has the letters."""
    return warning("fonts", text.names_not_written(missing)) if missing else ok("fonts", text.names_written())


def check_formats() -> Finding:
    from PIL import features  # noqa: PLC0415 - slow to import, and `run` does without it

    missing = [name for part, name in _FORMATS.items() if not features.check(part)]
    return error("images", text.formats_missing(missing)) if missing else ok("images", text.formats_readable())


def check_zone(name: str) -> Finding:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return error("time zone", text.time_zones_missing())
    return ok("time zone", text.time_zone(name))


def check_installation() -> Iterator[Finding]:
    """What needs no settings."""
    yield check_python()
    yield check_sqlite()
    yield check_packages()
    yield check_formats()
    yield check_charts()


def _size_of(folder: Path) -> int:
    """Bytes of the files in a folder; 0 if there is none."""
    try:
        with os.scandir(folder) as entries:
            return sum(entry.stat(follow_symlinks=False).st_size for entry in entries)
    except OSError:
        return 0
