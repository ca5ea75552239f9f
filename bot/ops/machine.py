"""Checks that need no network: the folder and its disk, SQLite, Python, and what is installed."""

from __future__ import annotations

import itertools
import os
import shutil
import sqlite3
import stat
import sys
import tempfile
from importlib import util
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from bot.domain.diagnosis import Disk, Finding, Obstacle, error, ok, warning
from bot.ops import mounts
from bot.text import doctor as text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

MEBIBYTE = 1024 * 1024
TOO_LITTLE = 64 * MEBIBYTE  # the reserve, the journal, and the images of a busy minute
RESERVE = 256 * MEBIBYTE  # beyond what the source images may use
_LEAST_SQLITE = (3, 38, 0)  # STRICT tables, and JSON functions in every build
_LEAST_PYTHON = (3, 11)
_LOCK = Path(__file__).parents[2] / "requirements" / "run.lock"
_INNER_FOLDERS = ("spool", "sources")
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
    if obstacle := _obstacle_in(folder):
        return error("folder", text.folder_unusable(obstacle))
    return ok("folder", text.folder_usable(folder) if folder.exists() else text.folder_new(folder))


def check_inner_folders(folder: Path) -> Iterator[Finding]:
    """Whether the folders of images in the folder of the data can be used, if they exist."""
    for name in _INNER_FOLDERS:
        if os.path.lexists(folder / name) and (obstacle := _obstacle_in(folder / name)):
            yield error(name, text.folder_unusable(obstacle))


def check_backups(folder: Path, *, are_scheduled: bool) -> Finding:
    """Whether backups can be written. The bot starts without, but not if it may not look for earlier ones."""
    try:
        is_readable = not folder.is_dir() or _allows(folder, os.R_OK | os.X_OK)
    except OSError:  # what is around it may not be entered
        is_readable = False
    if not is_readable:
        return error("backups", text.backups_unreadable(folder, *owner_of(folder)))
    if obstacle := _obstacle_in(folder):
        return warning("backups", text.backups_unwritable(obstacle))
    return ok("backups", text.backups_written(folder) if are_scheduled else text.backups_off())


def _obstacle_in(folder: Path) -> Obstacle | None:
    existing = folder
    try:
        existing = _existing_part(folder)
        if link := next((path for path in _upwards(folder, until=existing) if path.is_symlink()), None):
            return Obstacle(link, text.LINK_TO_NOWHERE, leads_nowhere=True)
        with tempfile.TemporaryFile(dir=existing):
            pass
    except PermissionError as problem:
        return Obstacle(existing, text.denied(problem.strerror or "", *owner_of(existing)))
    except OSError as problem:
        return Obstacle(existing, (problem.strerror or type(problem).__name__).lower())
    return None


def _upwards(folder: Path, *, until: Path) -> Iterator[Path]:
    """What is missing of a path, the innermost first."""
    absolute = folder.absolute()
    return itertools.takewhile(lambda path: path != until, (absolute, *absolute.parents))


def owner_of(path: Path) -> tuple[int, int] | tuple[None, None]:
    """The mode and the id of the owner; None where that cannot be seen."""
    try:
        found = path.stat()
    except OSError:
        return None, None
    return stat.S_IMODE(found.st_mode), found.st_uid


def _allows(path: Path, mode: int) -> bool:
    """Whether this user may do that."""
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def denied_file(paths: Iterable[Path]) -> Path | None:
    """The first that this user may not read and write. None is opened: closing a database would drop the locks of a bot
    in this process.
    """
    return next((path for path in paths if not _allows(path, os.R_OK | os.W_OK)), None)


def is_open_to_all(file: Path) -> bool:
    """Whether every user of this machine can read a file: by its mode, and by those of the folders around it."""
    try:
        path = file.resolve(strict=True)
        modes = [around.stat().st_mode for around in path.parents]
        return bool(path.stat().st_mode & stat.S_IROTH) and all(mode & stat.S_IXOTH for mode in modes)
    except OSError:
        return False


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
